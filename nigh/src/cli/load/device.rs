//! `nigh load --mec`: calls go to where a MEC system sends this device, and elsewhere once it says so.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use nigh_client::{Caller, CallerLimits};
use nigh_load::Target;
use nigh_mec::Device;
use nigh_proto::{Call, Endpoint, FunctionName, PlatformError, Reason, Reply};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::options::Whom;
use crate::cli::Global;

/// Calls each function where the MEC system says.
pub(super) struct Following {
    places: HashMap<FunctionName, watch::Receiver<String>>,
    callers: Mutex<HashMap<Endpoint, Arc<Caller>>>,
    global: Global,
    limits: CallerLimits,
}

/// Joins the MEC system at `root` as a device that uses these functions.
pub(super) async fn join(root: &http::Uri, whom: &Whom, functions: &[FunctionName]) -> anyhow::Result<Device> {
    let listener = TcpListener::bind(whom.mec_listen.as_str()).await;
    let listener = listener.with_context(|| format!("cannot hear notifications at {}", whom.mec_listen))?;
    let own = Endpoint::from(listener.local_addr()?);
    let reached = whom.mec_reached.as_ref().unwrap_or(&own);
    let names = functions.iter().map(ToString::to_string);
    Ok(Device::join(root, listener, reached, names).await?)
}

/// Where a MEC system is, as it stands in reports.
pub(super) fn endpoint(root: &http::Uri) -> anyhow::Result<Endpoint> {
    let host = root.host().unwrap_or_default();
    Ok(format!("{host}:{}", root.port_u16().unwrap_or(80)).parse()?)
}

impl Following {
    pub(super) fn new(device: &Device, global: Global, limits: CallerLimits) -> anyhow::Result<Self> {
        let places = device.places().map(|(name, place)| anyhow::Ok((name.parse()?, place)));
        Ok(Self { places: places.collect::<Result<_, _>>()?, callers: Mutex::default(), global, limits })
    }

    fn caller(&self, function: &FunctionName) -> Result<Arc<Caller>, PlatformError> {
        let place = self.places.get(function).map(|place| place.borrow().clone()).unwrap_or_default();
        let not_serving = |message| PlatformError::new(Reason::NotServing, message);
        let endpoint: Endpoint = place.parse().map_err(|_| {
            not_serving(format!("the MEC system sends callers of {function} to {place:?}, which is no HOST:PORT"))
        })?;
        let mut callers = self.callers.lock();
        if let Some(caller) = callers.get(&endpoint) {
            return Ok(caller.clone());
        }
        let remote = self.global.remote(endpoint.clone()).map_err(|error| not_serving(error.to_string()))?;
        let caller = Arc::new(Caller::new(remote, self.limits.clone()));
        callers.insert(endpoint, caller.clone());
        Ok(caller)
    }
}

impl Target for Following {
    async fn call(&self, call: Call) -> Result<Reply, PlatformError> {
        let caller = self.caller(&call.function)?;
        caller.invoke(call).await
    }
}
