//! Telling a caller what came of its call: over HTTP as a CloudEvent in binary mode, or by the older system's
//! `CallbackServer`. Only hosts that the operator allows are told, redirects are not followed, and tries are few.

use std::net::IpAddr;
use std::time::Duration;

use nigh_proto::asynchronous::Settled;
use nigh_proto::tls::https::HttpsConnector;
use nigh_proto::{AllowedHost, Call, Callback, Endpoint, PlatformError, Reason, event, older};

/// How often somebody is told who does not take it.
const TRIES_MAX: u32 = 6;
/// The first wait before another try; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// Time for one try.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a callback may go there: the operator allows its host, or it is of the older system and at its caller's own
/// address.
///
/// # Errors
/// [`Reason::NotAllowed`].
pub(super) fn check_allowed(
    callback: &Callback,
    hosts: &[AllowedHost],
    from: Option<IpAddr>,
) -> Result<(), PlatformError> {
    let (host, port, standard, is_own) = match callback {
        Callback::Http(url) => (url.host(), url.port(), url.standard_port(), false),
        Callback::Older { endpoint, .. } => {
            (endpoint.host(), endpoint.port(), 0, from.is_some_and(|from| is_at(endpoint, from)))
        }
    };
    if is_own || hosts.iter().any(|allowed| allowed.covers(host, port, standard)) {
        return Ok(());
    }
    let message =
        format!("callbacks to {host}:{port} are not allowed here; the operator may add it to `callback_hosts`");
    Err(PlatformError::new(Reason::NotAllowed, message))
}

/// Whether an endpoint is at the address where its caller is.
fn is_at(endpoint: &Endpoint, from: IpAddr) -> bool {
    let from = from.to_canonical();
    match endpoint.host().parse::<IpAddr>() {
        Ok(address) => address == from || (address.is_loopback() && from.is_loopback()),
        Err(_) => endpoint.host() == "localhost" && from.is_loopback(),
    }
}

/// Tells the caller of a call what came of it; why that was in vain.
pub(super) async fn deliver(
    to: &Callback,
    call: &Call,
    settled: &Settled,
    connector: &HttpsConnector,
) -> Result<(), String> {
    let mut wait = WAIT_MIN;
    for tries in 1.. {
        let tried = async {
            match to {
                Callback::Http(url) => event::post(url, call, settled.clone(), connector.clone()).await,
                Callback::Older { endpoint, response } => {
                    older::call_back(endpoint, older_response(response, call, settled))
                        .await
                        .map_err(|error| error.to_string())
                }
            }
        };
        let why = match tokio::time::timeout(TIMEOUT, tried).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {TIMEOUT:?}"),
        };
        if tries == TRIES_MAX {
            return Err(format!("{why} ({TRIES_MAX} times)"));
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    Ok(())
}

/// The older system's answer, with what travels along.
fn older_response(kept: &older::rpc::LambdaResponse, call: &Call, settled: &Settled) -> older::rpc::LambdaResponse {
    let told = match settled {
        Ok(reply) => older::response(reply.clone()),
        Err(error) => older::rpc::LambdaResponse {
            retcode: format!("invalid '{}' request: {error}", call.function),
            hops: call.hops.saturating_add(1),
            ..older::rpc::LambdaResponse::default()
        },
    };
    let mut states = kept.states.clone();
    if let Ok(reply) = settled {
        older::update_states(&mut states, &reply.states);
    }
    older::rpc::LambdaResponse { states, asynchronous: false, ..told }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_go_only_where_they_may() {
        let hosts: Vec<AllowedHost> = ["hooks.example", "10.0.0.1:81"].map(|host| host.parse().unwrap()).to_vec();
        let http = |url: &str| check_allowed(&Callback::Http(url.parse().unwrap()), &hosts, None).is_ok();
        assert!(http("http://hooks.example/x") && http("http://HOOKS.example:80/") && http("http://10.0.0.1:81/"));
        assert!(http("https://hooks.example/x") && !http("https://hooks.example:80/"));
        assert!(!http("http://hooks.example:81/") && !http("http://other/") && !http("http://127.0.0.1/"));
        let older = |endpoint: &str, from: &str| {
            let callback = Callback::Older { endpoint: endpoint.parse().unwrap(), response: Box::default() };
            check_allowed(&callback, &hosts, Some(from.parse().unwrap())).is_ok()
        };
        assert!(older("127.0.0.1:6480", "127.0.0.1") && older("localhost:6480", "127.0.0.1"));
        assert!(older("10.0.0.9:6480", "::ffff:10.0.0.9") && older("10.0.0.1:81", "10.0.0.9"));
        assert!(!older("127.0.0.1:6480", "10.0.0.9") && !older("10.0.0.8:6480", "10.0.0.9"));
    }
}
