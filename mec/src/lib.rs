//! ETSI MEC's interfaces for device applications: a device asks which applications there are, creates a context for one, is
//! told the address at which to call it, and is notified when another one suits better.
//!
//! A request enters at [`ingress`], which turns it into checked values. [`mec`] holds the contexts ([`context`]) and what
//! the controller tells ([`known`]); [`decide`] says which server a device gets; [`steer`] compares what devices were told
//! with what is decided now, and [`notify`] tells them, within the rules of [`callback`]. [`mp1`] is about being a service of
//! a MEC platform, [`drive`] about steering the devices of somebody else. Nothing here is on the way of a call.

mod application;
mod callback;
mod config;
mod context;
mod decide;
mod device;
mod drive;
mod error;
mod ingress;
mod known;
mod location;
mod mec;
mod metrics;
mod mp1;
mod notify;
mod server;
mod state;
mod steer;

use std::sync::Arc;

use nigh_proto::membership::{Topics, keep_watching};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::mec::Mec;
use crate::mp1::Registration;

pub use config::{CallbackConfig, Config, DeciderConfig, Give, LcmProxyConfig, PlatformConfig, Reference};
pub use device::{Device, DeviceError};
pub use error::{AssociationsError, Error};
pub use http::Uri;
pub use ipnet::IpNet;
pub use location::Location;

/// Changes that may wait to be taken in, all of which are then taken in at once.
const CHANGES_WAITING_MAX: usize = 1024;

/// The sockets that it serves; the caller has bound them.
#[derive(Debug)]
pub struct Listeners {
    /// Device applications, over HTTP.
    pub devices: TcpListener,
    /// Controllers and operators of the older system, over gRPC.
    pub older: Option<TcpListener>,
}

/// Serves the interfaces until `shutdown`, or until the MEC platform wants it to end; then takes itself back there, and
/// answers what is under way for at most [`Config::drain`].
///
/// # Errors
/// [`Error`]: the operator has to act.
pub async fn run(listeners: Listeners, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.check()?;
    let (controller, telemetry, mut drain) = (config.controller_remote(), config.telemetry.clone(), config.drain);
    let own = listeners.devices.local_addr().map_err(Error::Listener)?;
    let own = config.advertise.clone().unwrap_or_else(|| own.into());
    let (mec, mut ends) = Mec::open(config).await?;
    let mec = Arc::new(mec);
    let platform = mec.config.platform.clone();
    let mut registration =
        platform.map(|platform| Registration::new(platform, own, mec.config.tls.is_some(), &mec.announcements));
    metrics::describe(&telemetry, &mec);
    let watched = Arc::downgrade(&mec);
    telemetry.ready_when(move || watched.upgrade().map_or(Ok(()), |mec| mec.readiness()));
    let (tell, learnt) = mpsc::channel(CHANGES_WAITING_MAX);
    let topics = Topics { functions: true, computers: true, brokers: true };
    let stop = CancellationToken::new();
    let driving = mec.config.lcm_proxy.clone().zip(controller.clone());
    let _driving = driving.map(|(proxy, controller)| {
        let (tell, learnt) = mpsc::channel(CHANGES_WAITING_MAX);
        let watching = spawn(keep_watching(controller, topics, tell, stop.clone()));
        (watching, spawn(drive::drive(mec.clone(), proxy, learnt)))
    });
    let _watching = controller.map(|controller| spawn(keep_watching(controller, topics, tell, stop.clone())));
    let _steering = spawn(steer::steer(mec.clone(), learnt));
    let mut serving = Box::pin(ingress::serve(listeners, mec.clone(), stop.clone()));
    let end = tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown.cancelled() => None,
        Some(end) = ends.recv() => Some(end),
        never = keep_registered(registration.as_mut(), &mec) => match never {},
    };
    telemetry.not_ready("it is stopping");
    if let Some(end) = end {
        drain = drain.min(end.grace());
    }
    let leaving = async {
        // First, so that nobody is sent here any more.
        if let Some(registration) = &mut registration {
            registration.end().await;
        }
        stop.cancel();
    };
    let drained = async { tokio::join!(leaving, &mut serving).1 };
    let ended = tokio::time::timeout(drain, drained).await.unwrap_or_else(|_| {
        tracing::warn!(after = ?drain, "requests were still under way and are cut off");
        Ok(())
    });
    if let (Some(registration), Some(end)) = (&registration, end) {
        registration.confirm(end.operation_action).await;
    }
    ended
}

async fn keep_registered(registration: Option<&mut Registration>, mec: &Arc<Mec>) -> std::convert::Infallible {
    match registration {
        Some(registration) => registration.keep(mec, mec.calls()).await,
        None => std::future::pending().await,
    }
}

/// A task that ends with whoever holds it.
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
