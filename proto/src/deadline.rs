//! How much time a call has, as its caller's `grpc-timeout` says. The caller stops listening when that is over, and so do the servers
//! that stand before a role; whoever answers has to be a little earlier, or nobody would hear who was late.

use std::time::{Duration, Instant};

use http::HeaderMap;
use tonic::Request;

/// The share of a call's time that is left for the way of its answer, a twentieth …
const WAY_BACK_SHARE: u32 = 20;
/// … and the most of it that is.
const WAY_BACK_MAX: Duration = Duration::from_millis(20);

/// When the head of a request was there, from which on its time is running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadArrived(pub(crate) Instant);

/// The time in which a request whose message was complete at `arrived` has to be answered, if its caller set one that is well formed.
pub(crate) fn answer_time<T>(request: &Request<T>, arrived: Instant) -> Option<Duration> {
    let timeout = parse(request.metadata().get("grpc-timeout")?.to_str().ok()?)?;
    let head = request.extensions().get::<HeadArrived>().map_or(arrived, |head| head.0);
    Some(left_to_answer(timeout, head, arrived))
}

/// The same for a request that begins to arrive.
pub(crate) fn answer_time_of(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get("grpc-timeout")?.to_str().ok()?).map(without_way_back)
}

/// What is left for an answer of a caller's time that has been running for a while.
pub(crate) fn left_to_answer(timeout: Duration, since: Instant, now: Instant) -> Duration {
    without_way_back(timeout).saturating_sub(now.saturating_duration_since(since))
}

fn without_way_back(timeout: Duration) -> Duration {
    timeout - (timeout / WAY_BACK_SHARE).min(WAY_BACK_MAX)
}

/// The time that a `grpc-timeout` header says, if it is well formed.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows at most eight digits.
    let amount: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tonic::transport::{Endpoint, Server};
    use tower::service_fn;

    use super::*;
    use crate::call::{Call, CallLimits};
    use crate::connections::ServerLimits;
    use crate::ingress::{Handler, Ingress};
    use crate::intake::Intake;
    use crate::reply::Reply;
    use crate::status::{PlatformError, Reason};
    use crate::v1::functions_client::FunctionsClient;

    /// Says who was late when a call's time is over.
    struct Late;

    impl Handler for Late {
        async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
            tokio::time::sleep(call.time_left(arrived)).await;
            Err(PlatformError::new(Reason::Late, "the function ran"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_late_is_heard_before_the_caller_stops_listening() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let service = Ingress::service(Arc::new(Late), CallLimits::default());
        let server = Server::builder().layer(Intake::new(&ServerLimits::default())).add_service(service);
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(there));
        tokio::spawn(server.serve_with_incoming(tokio_stream::StreamExt::chain(incoming, tokio_stream::pending())));
        let mut here = Some(TokioIo::new(here));
        let connect = service_fn(move |_| {
            std::future::ready(here.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)))
        });
        let channel = Endpoint::from_static("http://edge").connect_with_connector(connect).await.unwrap();
        for ms in [50, 1000, 30_000] {
            let call = Call::new("echo".parse().unwrap(), "", Duration::from_millis(ms));
            let refused =
                FunctionsClient::new(channel.clone()).invoke(call.to_request(Instant::now())).await.unwrap_err();
            let error = PlatformError::from(refused);
            assert_eq!((error.reason, error.message.as_str()), (Reason::Late, "the function ran"), "{ms} ms");
        }
    }

    #[test]
    fn a_bit_of_the_time_is_left_for_the_way_back() {
        let ms = Duration::from_millis;
        assert_eq!([ms(100), ms(400), ms(60_000)].map(without_way_back), [ms(95), ms(380), ms(59_980)]);
        assert_eq!(without_way_back(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn time_runs_from_the_head_of_a_request_on() {
        let (head, whole) = (Instant::now(), Instant::now() + Duration::from_millis(30));
        let mut request = Request::new(());
        request.set_timeout(Duration::from_millis(100));
        assert_eq!(answer_time(&request, whole), Some(Duration::from_millis(95)));
        request.extensions_mut().insert(HeadArrived(whole.checked_sub(Duration::from_millis(30)).unwrap()));
        assert_eq!(answer_time(&request, whole), Some(Duration::from_millis(65)));
        assert_eq!(left_to_answer(Duration::from_millis(20), head, whole), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn time_outs_come_through_tonic_unharmed(us in 1u64..=99_999_999) {
            let mut request = Request::new(());
            request.set_timeout(Duration::from_micros(us));
            let told = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
            prop_assert_eq!(parse(told), Some(Duration::from_micros(us)));
        }

        #[test]
        fn any_time_out_text_is_judged_without_panic(text in "[ -~]{0,12}") {
            let _ = parse(&text);
        }
    }
}
