//! Requests to http functions and their answers, passed as they are: method, path below the function's name, query,
//! headers, body, and back status, headers, body. Left out, either way, are headers about one connection and those that
//! begin with `nigh-`, which are between caller and platform.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::BodyExt as _;

use super::answer::{self, COMPUTER, put, put_call_id, put_timing, put_version};
use super::body::AnswerBody;
use super::problem::Problem;
use super::request::{PLATFORM_PREFIX, Wishes, name_and_path};
use super::{Answer, HttpDoor, HttpHandler, at_once};
use crate::call::{Call, CallId};
use crate::cdn_loop;
use crate::exchange::{self, Exchange, Exchanged, Parts, RequestHead, ResponseHead, remove_hop_by_hop, whole_at_once};
use crate::name::FunctionName;
use crate::stall;
use crate::status::PlatformError;

/// Brings a request to the head of its answer.
pub(super) fn exchange<H: HttpHandler, B>(
    door: &HttpDoor<H>,
    function: FunctionName,
    request: Request<B>,
    arrived: Instant,
) -> BoxFuture<'_, Answer>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Send + 'static,
{
    let call = match called(door, function, &request, arrived) {
        Ok(call) => call,
        Err(error) => return at_once(Problem::of_platform(&error).respond(None)),
    };
    let (id, handler) = (call.id.clone(), &*door.handler);
    let prepared = handler.admit(call.priority).and_then(|place| Ok((place, to_exchange(call, request)?)));
    let (place, exchange) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return at_once(Problem::of_platform(&error).respond(Some(&id))),
    };
    Box::pin(async move {
        let outcome = if exchange.call.dry_run {
            Box::pin(handler.handle_in(place, exchange.call, arrived)).await.map(Exchanged::Failed)
        } else {
            handler.exchange_in(place, exchange, arrived).await
        };
        match outcome {
            Ok(Exchanged::Answer(head, parts)) => respond(head, parts, &id, door.stall_max),
            Ok(Exchanged::Failed(reply)) => answer::respond(reply),
            Err(error) => Problem::of_platform(&error).respond(Some(&id)),
        }
    })
}

/// The call that a request is.
fn called<H: HttpHandler, B>(
    door: &HttpDoor<H>,
    function: FunctionName,
    request: &Request<B>,
    arrived: Instant,
) -> Result<Call, PlatformError> {
    let wishes = Wishes::of(request.headers())?;
    let hops = cdn_loop::hops_of(request.headers(), door.gate.limits())?;
    let deadline = wishes.deadline(door.gate.limits(), arrived);
    let id = wishes.id.unwrap_or_else(CallId::random);
    Ok(Call {
        hops,
        dry_run: wishes.dry_run,
        // Methods that are safe by their definition do no harm when run twice.
        retry_safe: wishes.retry_safe.unwrap_or_else(|| request.method().is_safe()),
        priority: wishes.priority,
        application: wishes.application,
        ..Call::until(deadline, id, function, Bytes::new())
    })
}

fn to_exchange<B>(call: Call, request: Request<B>) -> Result<Exchange, PlatformError>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let authority = authority_of(&parts.uri, &parts.headers, &call.function)?;
    parts.headers.remove(header::HOST);
    parts.headers.remove(header::EXPECT);
    end_to_end(&mut parts.headers);
    let head = RequestHead { method: parts.method, path: path_of(&parts.uri)?, authority, headers: parts.headers };
    head.check()?;
    let body = if body.is_end_stream() {
        exchange::empty_body()
    } else {
        let broken = |error| PlatformError::malformed(format!("the body did not arrive whole: {error}"));
        let frames = body.into_data_stream().map_err(broken);
        Box::pin(frames) as exchange::Body
    };
    Ok(Exchange { call, head, body })
}

/// The host that was asked, as the caller named it.
fn authority_of(uri: &Uri, headers: &HeaderMap, function: &FunctionName) -> Result<String, PlatformError> {
    let host = || headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let named = uri.authority().map(Authority::as_str).or_else(host).filter(|host| !host.is_empty());
    let Some(named) = named else { return Ok(function.to_string()) };
    let checked: Result<Authority, _> = named.parse();
    checked.map(|_| named.to_owned()).map_err(|_| PlatformError::malformed("the host header is not a host"))
}

/// Path and query as the function sees them: below its own name.
fn path_of(uri: &Uri) -> Result<PathAndQuery, PlatformError> {
    let path = name_and_path(uri.path()).1.unwrap_or("/");
    let path: Result<PathAndQuery, _> = match uri.query() {
        Some(query) => format!("{path}?{query}").parse(),
        None => path.parse(),
    };
    path.map_err(PlatformError::malformed)
}

/// Leaves only what is between caller and function.
fn end_to_end(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    let of_platform: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(PLATFORM_PREFIX)).cloned().collect();
    for name in of_platform {
        headers.remove(name);
    }
}

/// An answer as a caller sees it. One that is all there is told whole, with its length and where the time went; another
/// passes in parts, each of which is to be read within `stall_max`.
fn respond(head: ResponseHead, parts: Parts, id: &CallId, stall_max: Duration) -> Answer {
    let ResponseHead { status, mut headers, computer, version } = head;
    end_to_end(&mut headers);
    put_call_id(&mut headers, id);
    put(&mut headers, &COMPUTER, computer.as_str());
    put_version(&mut headers, &version);
    // Where the function itself says how long it is, that is held against what comes, as with any that passes in parts.
    let whole = if headers.contains_key(header::CONTENT_LENGTH) { Err(parts) } else { whole_at_once(parts) };
    let body = match whole {
        Ok((bytes, reply)) => {
            put_timing(&mut headers, reply.timing);
            AnswerBody::whole(bytes)
        }
        Err(parts) => AnswerBody::passing(stall::within(stall_max, parts), id.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;
    use crate::call::Headers;
    use crate::exchange::Part;
    use crate::name::{Digest, NodeName};
    use crate::reply::{Outcome, Reply};
    use crate::status::Reason;

    fn exchange(request: http::request::Builder) -> Result<RequestHead, PlatformError> {
        let call = Call::new("shop".parse().unwrap(), Bytes::new(), std::time::Duration::from_secs(1));
        to_exchange(call, request.body(http_body_util::Empty::<Bytes>::new()).unwrap()).map(|exchange| exchange.head)
    }

    #[test]
    fn a_request_passes_as_it_is_below_the_functions_name() {
        let request = Request::builder().method("PUT").uri("/function/shop/cart/7%2F8?color=red&x");
        let head = exchange(request.header("host", "edge:8080").header("x-mine", "1")).unwrap();
        assert_eq!((head.method.as_str(), head.path.as_str()), ("PUT", "/cart/7%2F8?color=red&x"));
        assert_eq!((head.authority.as_str(), head.headers.len()), ("edge:8080", 1));
        assert_eq!(exchange(Request::get("/function/shop?q=1")).unwrap().path.as_str(), "/?q=1");
        assert_eq!(exchange(Request::get("/function/shop")).unwrap().authority, "shop");
    }

    #[test]
    fn what_is_about_the_connection_or_for_the_platform_does_not_pass() {
        let request = Request::get("/function/shop")
            .header("connection", "close, x-hop")
            .header("x-hop", "1")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers")
            .header("expect", "100-continue")
            .header("nigh-timeout", "1s")
            .header("accept", "*/*");
        let head = exchange(request).unwrap();
        assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    fn answered(headers: HeaderMap, parts: Vec<Part>) -> Answer {
        let computer: NodeName = "camera-7".parse().unwrap();
        let head = ResponseHead { status: http::StatusCode::OK, headers, computer, version: Digest::of(b"") };
        let parts = Box::pin(stream::iter(parts.into_iter().map(Ok)).chain(stream::pending()));
        respond(head, parts, &CallId::random(), Duration::from_secs(1))
    }

    #[test]
    fn an_answer_that_is_all_there_is_told_with_its_length_and_its_times() {
        let outcome = Outcome::Answer { payload: Bytes::new(), headers: Headers::default() };
        let mut reply = Reply::new(outcome, "camera-7".parse().unwrap(), CallId::random());
        reply.timing.run = Duration::from_micros(1250);
        let all = vec![Part::Body(Bytes::from_static(b"hello")), Part::End(Box::new(reply))];
        let answer = answered(HeaderMap::new(), all.clone());
        assert_eq!(answer.body().size_hint().exact(), Some(5));
        let times = answer.headers()["server-timing"].to_str().unwrap();
        assert!(times.contains("run;dur=1.250"), "{times}");
        let going_on = answered(HeaderMap::new(), all[..1].to_vec());
        assert_eq!(going_on.body().size_hint().exact(), None);
        assert!(!going_on.headers().contains_key("server-timing"));
        // What the function says of it is held against what comes.
        let said = [(header::CONTENT_LENGTH, "7".parse().unwrap())].into_iter().collect();
        assert_eq!(answered(said, all).body().size_hint().exact(), None);
    }

    #[test]
    fn heads_are_bounded() {
        let long = format!("/function/shop/{}", "a".repeat(9000));
        assert_eq!(exchange(Request::get(long)).unwrap_err().reason, Reason::TooLarge);
        let fat = Request::get("/function/shop").header("x", "a".repeat(17_000));
        assert_eq!(exchange(fat).unwrap_err().reason, Reason::TooLarge);
    }
}
