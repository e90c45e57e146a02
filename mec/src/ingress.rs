//! The door: HTTP requests to checked values, and refusals as problem documents.

mod dev_app;
mod lcm;
mod mx2;
mod platform;
mod problem;
mod read;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use ipnet::IpNet;
use nigh_proto::channel::{self, Door};
use nigh_proto::tls::HttpClients;
use nigh_proto::tls::connection::Peer;
use nigh_proto::{PlatformError, Reason, access};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::Listeners;
use crate::callback::Device;
use crate::error::{Error, Refusal};
use crate::mec::Mec;

/// Says where a request came from before a proxy passed it on.
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

/// Serves every door until `stop`, and then until the requests under way have been answered.
///
/// # Errors
/// [`Error::Serve`] where a door fails for good.
pub(crate) async fn serve(listeners: Listeners, mec: Arc<Mec>, stop: CancellationToken) -> Result<(), Error> {
    let http = devices(listeners.devices, mec.clone(), stop.clone());
    let older = async {
        let Some(listener) = listeners.older else { return Ok(()) };
        let door = Door::new(listener, mec.config.tls.clone()).within(&mec.config.server);
        let services = channel::server_within(&mec.config.server).add_service(lcm::LcmIngress::service(mec.clone()));
        channel::serve(services, door, stop).await
    };
    let ((), older) = tokio::join!(http, older);
    older.map_err(|source| Error::Serve { door: "associations", source: source.into() })
}

async fn devices(listener: TcpListener, mec: Arc<Mec>, stop: CancellationToken) {
    let config = mec.config.clone();
    let mut router = dev_app::routes(mec.clone());
    if config.platform.is_some() {
        router = router.merge(platform::routes());
    }
    if config.mx2 {
        router = router.merge(mx2::routes(mec.clone()));
    }
    let router = router
        .fallback(|| async { problem::of(&Refusal::UnknownPath) })
        .method_not_allowed_fallback(|| async { problem::wrong_method() })
        .with_state(mec.clone());
    let door = Door::new(listener, config.tls.clone()).within(&config.server);
    channel::http::serve(door, config.http_clients, stop, move |request, peer| {
        let (router, mec) = (router.clone(), mec.clone());
        async move {
            let response = answer(router, &mec, request.map(axum::body::Body::new), &peer).await;
            mec.tally.responses.count(response.status().as_u16());
            response
        }
    })
    .await;
}

async fn answer(mut router: Router, mec: &Mec, mut request: Request, peer: &Peer) -> Response {
    if mec.config.http_clients == HttpClients::Certified
        && let Err(error) = access::allow(peer, "use this interface", access::CALLERS)
    {
        return not_let_in(&error);
    }
    let device = whose(peer.address.ip(), request.headers(), &mec.config.proxies);
    request.extensions_mut().insert(device);
    router.call(request).await.unwrap_or_else(|never| match never {})
}

fn not_let_in(error: &PlatformError) -> Response {
    let status = if error.reason == Reason::NotAllowed { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    problem::told(status, "Not allowed", &error.message)
}

/// Which device a request is from. What a header says counts only where a proxy that the operator named has written it.
fn whose(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Device {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(&address));
    let peer = peer.to_canonical();
    let passed_on = || Device { address: peer, is_direct: false };
    if !is_proxy(peer) {
        let is_direct = !headers.contains_key(FORWARDED_FOR) && !headers.contains_key(FORWARDED);
        return Device { address: peer, is_direct };
    }
    // Each proxy adds whom it has heard from at the end, so the last that is no proxy of ours is the device.
    let values: Vec<&HeaderValue> = headers.get_all(FORWARDED_FOR).iter().collect();
    let hops = values.iter().rev().filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    for hop in hops {
        let Ok(address) = hop.trim().trim_matches(['[', ']']).parse::<IpAddr>() else { return passed_on() };
        let address = address.to_canonical();
        if !is_proxy(address) {
            return Device { address, is_direct: true };
        }
    }
    passed_on()
}

/// The whole body of a request that says it is JSON.
async fn body(mec: &Mec, request: Request) -> Result<Bytes, Refusal> {
    let is_json =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/json")
        });
    if !is_json {
        return Err(Refusal::Malformed("its content type must be application/json".to_owned()));
    }
    let limit = mec.config.request_bytes_max;
    let read = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(mec.config.request_timeout, read).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(_)) => Err(Refusal::Malformed(format!("it broke off, or has over {limit} bytes"))),
        Err(_) => Err(Refusal::Malformed(format!("it did not come within {:?}", mec.config.request_timeout))),
    }
}

/// What every handler is given.
type Shared = State<Arc<Mec>>;
type Asker = Extension<Device>;

#[cfg(test)]
mod tests {
    use super::*;

    fn device(peer: &str, forwarded: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let proxies = ["10.0.0.1/32".parse().unwrap(), "10.5.0.0/16".parse().unwrap()];
        let device = whose(peer.parse().unwrap(), &headers, &proxies);
        (device.address.to_string(), device.is_direct)
    }

    #[test]
    fn only_named_proxies_are_believed() {
        assert_eq!(device("192.0.2.7", &[]), ("192.0.2.7".into(), true));
        assert_eq!(device("::ffff:192.0.2.7", &[]), ("192.0.2.7".into(), true));
        assert_eq!(
            device("192.0.2.7", &["198.51.100.1"]),
            ("192.0.2.7".into(), false),
            "it was passed on by a stranger"
        );
        assert_eq!(device("10.0.0.1", &["198.51.100.1"]), ("198.51.100.1".into(), true));
        assert_eq!(device("10.0.0.1", &["127.0.0.1, 198.51.100.1, 10.5.0.9"]), ("198.51.100.1".into(), true));
        assert_eq!(device("10.0.0.1", &["127.0.0.1", "fd00::7"]), ("fd00::7".into(), true));
        for nothing in [&[][..], &["nonsense"], &["198.51.100.1, nonsense"], &["10.5.0.1"]] {
            assert_eq!(device("10.0.0.1", nothing), ("10.0.0.1".into(), false), "{nothing:?}");
        }
    }
}
