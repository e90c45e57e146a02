//! Http functions through a whole edge: components from three languages' own toolchains, their bodies on the way in both
//! directions, their own requests, and what happens to those that misbehave.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Endpoint, Headers, Kind, Limits, Outcome, Reason};
use nigh_tests::edge::{Edge, answer};
use nigh_tests::guests;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// An edge that serves the Rust component as `web`.
async fn edge() -> Edge {
    edge_with(Limits::default(), &[]).await
}

async fn edge_with(limits: Limits, hosts: &[String]) -> Edge {
    let edge = Edge::start(1).await;
    edge.deploy_allowing("web", guests::built("rust"), limits, hosts).await.unwrap();
    edge
}

/// Sends one request to the broker's HTTP door on a connection of its own.
async fn send<B>(edge: &Edge, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    try_send(edge, request).await.unwrap()
}

async fn try_send<B>(edge: &Edge, request: Request<B>) -> hyper::Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    try_send_to(&edge.http(), request).await
}

async fn try_send_to<B>(door: &Endpoint, request: Request<B>) -> hyper::Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let connection = TcpStream::connect(door.as_str()).await.unwrap();
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.unwrap();
    // Ends with the connection.
    tokio::spawn(driver);
    sender.send_request(request).await
}

async fn get(edge: &Edge, path: &str) -> (u16, String) {
    let request = Request::get(path).header("host", edge.http().as_str()).body(Full::new(Bytes::new())).unwrap();
    text(send(edge, request).await).await
}

async fn text(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// A problem document's `kind` or, where it has none, its `reason`.
fn told(document: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_else(|_| panic!("{document}"));
    let told = document.get("kind").unwrap_or(&document["reason"]);
    told.as_str().unwrap().to_owned()
}

/// A server on loopback that answers every request with its path, after `delay`.
async fn neighbour(delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let answer = hyper::service::service_fn(move |request: Request<Incoming>| async move {
                tokio::time::sleep(delay).await;
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                    request.uri().path().to_owned(),
                ))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), answer));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_answer_pass_as_they_are() {
    let edge = edge().await;
    let request = Request::put("/function/web/about?color=red&x=%20")
        .header("host", "shop.example:81")
        .header("x-mine", "1")
        .header("connection", "keep-alive, x-hop")
        .header("x-hop", "1")
        .header("nigh-timeout", "5s")
        .body(Full::new(Bytes::from_static(b"ignored")))
        .unwrap();
    let response = send(&edge, request).await;
    let headers = response.headers().clone();
    assert_eq!(response.status(), 201);
    assert_eq!(headers["x-made-by"], "Rust");
    assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_ne!(headers["nigh-computer"], "forged");
    assert!(headers.contains_key("nigh-version") && headers.contains_key("nigh-call-id"));
    let (_, said) = text(response).await;
    assert_eq!(said, "Method::Put /about color=red&x=%20 shop.example:81 1 [content-length x-mine]");
    assert_eq!(get(&edge, "/function/web/status?418").await, (418, "as you like".to_owned()));
    assert_eq!(get(&edge, "/function/web/hello").await, (200, "Hello, WASI!".to_owned()));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_travel_both_ways_before_they_are_whole() {
    let edge = edge().await;
    let (parts, sent) = mpsc::channel::<Bytes>(1);
    let body = stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) });
    let body = StreamBody::new(body.map(|part| Ok::<_, std::convert::Infallible>(Frame::data(part))).boxed());
    parts.send(Bytes::from_static(b"first")).await.unwrap();
    let request = Request::post("/function/web/echo").header("host", "edge").body(body).unwrap();
    let mut response = send(&edge, request).await;
    let first = response.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first", "the answer begins before the request has ended");
    parts.send(Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "second");
    drop(parts);
    assert!(response.frame().await.is_none());

    let large: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let request = Request::post("/function/web/echo").header("host", "edge").body(Full::new(large.clone())).unwrap();
    let back = send(&edge, request).await.collect().await.unwrap().to_bytes();
    assert!(back == large, "{} bytes came back of {}", back.len(), large.len());
    edge.stop().await;
}

/// Streams that either end leaves before the other has ended them are resets, and a connection bears only so many.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_wear_out_no_connection() {
    let edge = Arc::new(edge_with(Limits { concurrency: 64, ..Limits::default() }, &[]).await);
    let callers = (0..64).map(|_| {
        let edge = edge.clone();
        tokio::spawn(async move {
            let connection = TcpStream::connect(edge.http().as_str()).await.unwrap();
            let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.unwrap();
            tokio::spawn(driver);
            for _ in 0..100 {
                let request =
                    Request::get("/function/web/hello").header("host", "edge").body(Full::<Bytes>::default()).unwrap();
                // The task that drives the connection may not have seen the end of the answer before.
                sender.ready().await.unwrap();
                let response = sender.send_request(request).await.unwrap();
                let (status, body) = text(response).await;
                assert_eq!(status, 200, "{body}");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    Arc::into_inner(edge).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_calls_reach_an_http_function_too() {
    let edge = edge().await;
    assert_eq!(edge.answer("web", "posted to /").await, "posted to /");
    let large = "x".repeat(2 << 20);
    assert_eq!(edge.answer("web", large.clone()).await, large);
    let mut call = Call::new("web".parse().unwrap(), "a,b", Duration::from_secs(20));
    call.headers = Headers::new(vec![("Content-Type".into(), "text/csv".into())]).unwrap();
    let reply = edge.caller.invoke(call).await.unwrap();
    assert!(reply.timing.run > Duration::ZERO, "{:?}", reply.timing);
    let Outcome::Answer { headers, .. } = &reply.outcome else { panic!("{reply:?}") };
    assert_eq!(headers.get("content-type"), Some("text/csv"));
    let mut call = Call::new("web".parse().unwrap(), "", Duration::from_secs(20));
    call.headers = Headers::new(vec![("not a token".into(), "x".into())]).unwrap();
    assert_eq!(edge.caller.invoke(call).await.unwrap_err().reason, Reason::Malformed);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_take_calls_as_before_and_no_paths() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    let post =
        |path: &str| Request::post(path).header("host", "edge").body(Full::new(Bytes::from_static(b"hi"))).unwrap();
    assert_eq!(text(send(&edge, post("/function/echo")).await).await, (200, "hi".to_owned()));
    let (status, document) = text(send(&edge, post("/function/echo/further")).await).await;
    assert_eq!((status, told(&document).as_str()), (404, "unknown-path"), "{document}");
    let (status, document) = get(&edge, "/function/echo").await;
    assert_eq!((status, told(&document).as_str()), (405, "wrong-method"));
    let (status, document) = get(&edge, "/function/nobody/at/all").await;
    assert_eq!((status, told(&document).as_str()), (404, "unknown-path"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_only_where_the_deployment_allows() {
    let (allowed, other) = (neighbour(Duration::ZERO).await, neighbour(Duration::ZERO).await);
    let port = allowed.rsplit_once(':').unwrap().1;
    // The system takes the last for an address, though it is none by its form: a name that leads to this very machine.
    let (local, rebound) = (format!("localhost:{port}"), format!("127.1:{port}"));
    let edge = edge_with(Limits::default(), &[allowed.clone(), local.clone(), rebound.clone()]).await;
    let (status, said) = get(&edge, &format!("/function/web/fetch?{allowed}/hello")).await;
    assert_eq!((status, said.as_str()), (200, "200: /hello"));
    let (status, said) = get(&edge, &format!("/function/web/fetch?{other}/")).await;
    assert_eq!((status, said.as_str()), (502, "failed: ErrorCode::HttpRequestDenied"));
    let (_, said) = get(&edge, &format!("/function/web/fetch?user@{allowed}/")).await;
    assert_eq!(said, "failed: ErrorCode::HttpRequestUriInvalid");
    assert_eq!(get(&edge, &format!("/function/web/fetch?{local}/hello")).await, (200, "200: /hello".to_owned()));
    let (status, said) = get(&edge, &format!("/function/web/fetch?{rebound}/hello")).await;
    assert_eq!((status, said.as_str()), (502, "failed: ErrorCode::DestinationIpProhibited"));
    // A call's lines are all there once it has ended, which is after its answer.
    edge.until("the log tells why requests were refused", async || {
        let lines = logs(&edge, "web").await;
        let told = |line: &String| line.contains("127.1 was refused: that name leads to 127.0.0.1");
        lines.iter().any(|line| line.contains(&format!("--allow-host {other}")))
            && lines.iter().any(|line| told(line) && line.contains("outgoing_networks"))
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_few_requests_under_way() {
    let slow = neighbour(Duration::from_millis(100)).await;
    let edge = edge_with(Limits::default(), std::slice::from_ref(&slow)).await;
    assert_eq!(get(&edge, &format!("/function/web/fetch-at-once?16&{slow}")).await, (200, "0".to_owned()));
    assert_eq!(get(&edge, &format!("/function/web/fetch-at-once?20&{slow}")).await, (200, "4".to_owned()));
    edge.stop().await;
}

/// What the computer keeps of a function's lines.
async fn logs(edge: &Edge, function: &str) -> Vec<String> {
    let computer = edge.listing().await.computers[0].endpoint.clone();
    let query = nigh_client::LogQuery { function: Some(function.parse().unwrap()), ..Default::default() };
    let lines = nigh_client::Inspect::new(computer).logs(query).await.unwrap();
    lines.map(|line| line.unwrap().text).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_prints_becomes_log_lines() {
    let edge = edge().await;
    assert_eq!(get(&edge, "/function/web/log").await.0, 204);
    assert_eq!(get(&edge, "/function/web/work-after").await, (200, "answered".to_owned()));
    edge.until("the function has worked on after its answer", async || {
        logs(&edge, "web").await == ["printed", "complained", "worked after the answer"]
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_before_it_answers_is_told_of_by_kind() {
    let limits = Limits { timeout: Duration::from_secs(2), memory_bytes: 32 << 20, ..Limits::default() };
    let edge = edge_with(limits, &[]).await;
    for (path, kind) in [
        ("trap", "trap"),
        ("spin", "time-limit"),
        ("sleep?60000", "time-limit"),
        ("grow", "memory-limit"),
        ("recurse", "stack-limit"),
        ("silent", "no-answer"),
        ("unable", "http-error"),
    ] {
        let (status, document) = get(&edge, &format!("/function/web/{path}")).await;
        assert_eq!((status, told(&document).as_str()), (500, kind), "{path}: {document}");
        assert_eq!(get(&edge, "/function/web/hello").await.0, 200, "the next call is served");
    }
    let reply = edge.call("web", "").await.unwrap();
    assert_eq!(answer(reply), "");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_whole_does_not_look_whole() {
    let limits = Limits { payload_bytes: 100_000, ..Limits::default() };
    let edge = edge_with(limits, &[]).await;
    for path in ["trap-midway", "unfinished", "large?100001"] {
        let request =
            Request::get(format!("/function/web/{path}")).header("host", "edge").body(Full::new(Bytes::new())).unwrap();
        // A head that has not left yet when the function fails does not leave at all.
        if let Ok(response) = try_send(&edge, request).await {
            assert_eq!(response.status(), 200, "{path} begins well");
            assert!(response.into_body().collect().await.is_err(), "{path} is cut off");
        }
    }
    assert_eq!(get(&edge, "/function/web/large?100000").await.1.len(), 100_000);
    let over =
        Request::post("/function/web/echo").header("host", "edge").body(Full::new(vec![0; 100_001].into())).unwrap();
    let (status, document) = text(send(&edge, over).await).await;
    assert_eq!((status, told(&document).as_str()), (413, "too-large"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_the_call() {
    let edge = edge_with(Limits { timeout: Duration::from_secs(60), ..Limits::default() }, &[]).await;
    let computer = edge.listing().await.computers[0].endpoint.clone();
    let computer = nigh_client::Inspect::new(computer);
    let running = async || computer.status().await.unwrap().load.running;
    for path in ["sleep?60000", "spin"] {
        let request =
            Request::get(format!("/function/web/{path}")).header("host", "edge").body(Full::new(Bytes::new())).unwrap();
        let calling = tokio::time::timeout(Duration::from_millis(200), send(&edge, request));
        assert!(calling.await.is_err(), "{path} does not answer");
        edge.until("nothing runs", async || running().await == 0).await;
    }
    // The same in the middle of an answer: nobody reads on, so the function's writes end.
    let request =
        Request::get("/function/web/large?16000000").header("host", "edge").body(Full::new(Bytes::new())).unwrap();
    let mut response = send(&edge, request).await;
    assert!(response.frame().await.unwrap().is_ok());
    drop(response);
    edge.until("nothing runs", async || running().await == 0).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_the_requests_of_its_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
    let edge = edge_with(limits, std::slice::from_ref(&silent)).await;
    let request = Request::get(format!("/function/web/fetch?{silent}/")).header("host", "edge");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let calling = tokio::spawn({
        let door = edge.http();
        async move { try_send_to(&door, request).await.map(drop) }
    });
    let (mut asked, _) = listener.accept().await.unwrap();
    assert!(asked.read(&mut [0; 1]).await.unwrap() > 0, "the function's request arrives");
    calling.abort();
    // Nothing is ever answered, so its end is the function's own.
    let ended = tokio::time::timeout(Duration::from_secs(30), asked.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the function's request goes on though nobody waits");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_fresh_unless_deployed_with_reuse() {
    let edge = edge().await;
    for _ in 0..3 {
        assert_eq!(get(&edge, "/function/web/count").await.1, "1");
    }
    let limits = Limits { reuse: 3, ..Limits::default() };
    edge.try_deploy("web", guests::built("rust"), limits).await.unwrap();
    let counts: Vec<_> = stream::iter(0..4).then(async |_| get(&edge, "/function/web/count").await.1).collect().await;
    assert_eq!(counts, ["1", "2", "3", "1"]);
    edge.stop().await;
}

/// A call of `web`, and whether it found its instance made.
async fn is_made_ahead(edge: &Edge) -> bool {
    let reply = edge.call("web", "hello").await.unwrap();
    let is_made_ahead = !reply.timing.reset.is_zero();
    assert_eq!(answer(reply), "hello");
    is_made_ahead
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_made_ahead_and_as_fresh_as_any() {
    let edge = edge().await;
    let mut seeds = std::collections::HashSet::new();
    let mut made_ahead = 0;
    // One is made after each call, mostly before the next.
    for round in 0..100 {
        assert_eq!(get(&edge, "/function/web/count").await.1, "1", "in round {round}");
        assert!(seeds.insert(get(&edge, "/function/web/seed").await.1), "random numbers come again in round {round}");
        made_ahead += u32::from(is_made_ahead(&edge).await);
        if made_ahead > 10 {
            break;
        }
    }
    assert!(made_ahead > 10, "{made_ahead} calls found an instance that was made ahead");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_from_javascript_runs_unmodified() {
    runs_unmodified("javascript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_from_python_runs_unmodified() {
    runs_unmodified("python").await;
}

async fn runs_unmodified(language: &str) {
    let allowed = neighbour(Duration::ZERO).await;
    // A language's whole engine, compiled by a compiler that itself is built without optimisation.
    let edge = Edge::start_with(1, |config| {
        config.computer.compile_cpu_max = Duration::from_secs(600);
        config.computer.compile_timeout = Duration::from_secs(900);
    })
    .await;
    let hosts = std::slice::from_ref(&allowed);
    edge.deploy_allowing(language, guests::foreign(language), Limits::default(), hosts).await.unwrap();
    let echo = Request::post(format!("/function/{language}/echo"));
    let echo = echo.header("host", "edge").body(Full::new(Bytes::from_static(b"said"))).unwrap();
    assert_eq!(text(send(&edge, echo).await).await, (200, "said".to_owned()));
    let (status, said) = get(&edge, &format!("/function/{language}/about?color=red")).await;
    assert_eq!(status, 201, "{said}");
    assert!(said.contains("color=red"), "{said}");
    let (status, said) = get(&edge, &format!("/function/{language}/fetch?url=http://{allowed}/hello")).await;
    assert_eq!((status, said.as_str()), (200, "200: /hello"));
    let (status, said) = get(&edge, &format!("/function/{language}/fetch?url=http://192.0.2.1/")).await;
    assert_eq!(status, 502, "{said}");
    assert_eq!(get(&edge, &format!("/function/{language}/nowhere")).await, (404, "no such page\n".to_owned()));
    let lines = logs(&edge, language).await;
    assert!(lines.iter().any(|line| line.starts_with("asked")), "{lines:?}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_compiled_once_and_kept_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let module = guests::built("rust");
    let compiled = || {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
        let code = entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "cwasm"));
        code.map(|entry| entry.metadata().unwrap().modified().unwrap()).collect::<Vec<_>>()
    };
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut config = nigh_runtime::Config::new("computer-1".parse().unwrap());
        config.cache = Some(folder.path().to_owned());
        let computer = nigh_runtime::Computer::new(config).unwrap();
        let (digest, bytes) = (Digest::of(&module), module.len() as u64);
        let deployment = Deployment::new("web".parse().unwrap(), digest, bytes, Kind::Http, Limits::default(), vec![]);
        computer.deploy(deployment, module.clone()).await.unwrap();
        let call = Call::new("web".parse().unwrap(), "said", Duration::from_secs(20));
        let reply = computer.handle(call, std::time::Instant::now()).await.unwrap();
        assert_eq!(answer(reply), "said");
        kept.push(compiled());
    }
    assert_eq!(kept[0].len(), 1);
    assert_eq!(kept[0], kept[1], "the second start loads what the first has written");
}
