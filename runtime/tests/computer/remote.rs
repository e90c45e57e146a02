//! A computer whose functions run elsewhere, against servers on real sockets that do as a script says: well, slowly, wrongly, not
//! at all.

mod openwhisk;
mod server;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Call, Estimate, Outcome, PlatformError, Reason, Reply};
use nigh_runtime::{Backend, Config, Error, RemoteApi, RemoteSettings};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::server::{Asked, Server, Told, tell, tell_after};
use crate::role::{FakeController, Running, start};
use crate::set_up::*;

fn http(url: &str, functions: &[&str]) -> RemoteSettings {
    RemoteSettings {
        api: RemoteApi::Http { url: url.parse().unwrap(), namespace: None },
        functions: functions.iter().map(|function| function.parse().unwrap()).collect(),
        credentials: None,
        trust: None,
        refresh: Duration::from_secs(60),
    }
}

fn with(settings: RemoteSettings) -> Config {
    Config { backend: Backend::Remote(Box::new(settings)), ..config() }
}

/// A computer that has looked once.
async fn computer(config: Config) -> Arc<Running> {
    let telemetry = config.telemetry.clone();
    let computer = Arc::new(start(config).await);
    until("it is ready", || telemetry.readiness().is_ok()).await;
    computer
}

fn begin(computer: &Arc<Running>, call: Call) -> JoinHandle<Result<Reply, PlatformError>> {
    let computer = computer.clone();
    tokio::spawn(async move { computer.invoke(call).await })
}

fn within(ms: u64, mut call: Call) -> Call {
    call.deadline = Instant::now() + Duration::from_millis(ms);
    call
}

fn payload(reply: Result<Reply, PlatformError>) -> String {
    match reply.unwrap().outcome {
        Outcome::Answer { payload, .. } => String::from_utf8(payload.to_vec()).unwrap(),
        other => panic!("no answer: {other:?}"),
    }
}

fn kind_and_message(reply: Result<Reply, PlatformError>) -> (String, String) {
    match reply.unwrap().outcome {
        Outcome::Error { kind, message } => (kind, message),
        other => panic!("no error: {other:?}"),
    }
}

/// Answers with the status that is the last segment of the path.
fn by_path(asked: Asked) -> Told {
    match asked.path.rsplit('/').next().unwrap() {
        "echo" => {
            tell(200, &[("content-type", asked.header("content-type")), ("set-cookie", "a=b")], asked.body.clone())
        }
        "large" => tell(200, &[], vec![b'x'; 2 << 20]),
        "busy" => tell(429, &[("retry-after", "7")], "slow down"),
        "away" => tell(503, &[], ""),
        "moved" => tell(302, &[("location", "http://127.0.0.1:1/function/echo")], ""),
        status => tell(status.parse().unwrap_or(404), &[], format!("the words of \u{1b}{status}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_post_and_its_status_says_whose_fault_it_is() {
    let server = Server::start(by_path).await;
    let names = ["echo=v1/echo", "large", "busy", "away", "moved", "s418=418", "s500=500", "s502=502", "s504=504"];
    let names = [&names[..], &["s404=404", "s413=413", "s403=403"]].concat();
    let mut config = with(http(&server.url("/run/{function}"), &names));
    config.limits.payload_bytes_max = 1 << 20;
    let computer = computer(config).await;

    let mut echo = call("echo", "hello");
    let given = [("content-type", "text/plain"), ("x-own", "1"), ("host", "evil"), ("transfer-encoding", "x")];
    echo.headers = headers(&given);
    let id = echo.id.clone();
    let reply = computer.invoke(echo).await.unwrap();
    assert!(reply.version.is_none() && reply.timing.run > Duration::ZERO && reply.load.workers == 4, "{reply:?}");
    let Outcome::Answer { payload, headers: told } = reply.outcome else { panic!() };
    assert_eq!((&payload[..], told), (&b"hello"[..], headers(&[("content-type", "text/plain")])));
    let asked = server.asked("/run/v1/echo").remove(0);
    assert_eq!(
        (asked.method.as_str(), asked.header("x-own"), asked.header("x-request-id")),
        ("POST", "1", id.as_str())
    );
    assert_eq!(asked.header("host"), server.address.to_string());

    for (name, kind, says) in [
        ("s418", "http-418", "the words of"),
        ("s500", "http-500", "the words of"),
        ("s403", "http-403", "the words of"),
        ("s504", "time-limit", "gateway"),
        ("large", "answer-too-large", "1048576 bytes"),
    ] {
        let (told, message) = kind_and_message(computer.invoke(call(name, "")).await);
        assert!(told == kind && message.contains(says) && !message.contains('\u{1b}'), "{name}: {told} {message}");
    }
    for (name, reason) in [
        ("s404", Reason::UnknownFunction),
        ("s413", Reason::TooLarge),
        ("s502", Reason::Disconnected),
        ("moved", Reason::Protocol),
        ("away", Reason::NotServing),
        ("busy", Reason::TooBusy),
        ("other", Reason::UnknownFunction),
    ] {
        let error = computer.invoke(call(name, "")).await.unwrap_err();
        assert_eq!(error.reason, reason, "{name}: {error}");
    }
    assert_eq!(server.asked("/function/echo").len(), 0, "a redirect is not followed");
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_to_be_left_alone_is() {
    let server = Server::start(by_path).await;
    let computer = computer(with(http(&server.url("/{function}"), &["busy", "echo"]))).await;
    let first = computer.invoke(call("busy", "")).await.unwrap_err();
    assert_eq!((first.reason, first.retry_after), (Reason::TooBusy, Some(Duration::from_secs(7))));
    let second = computer.invoke(call("busy", "")).await.unwrap_err();
    assert_eq!(second.reason, Reason::TooBusy);
    assert!(second.retry_after.is_some_and(|wait| wait <= Duration::from_secs(7)), "{second:?}");
    assert_eq!(server.asked("/busy").len(), 1, "the second was refused here");
    assert_eq!(payload(computer.invoke(call("echo", "x")).await), "x", "others are none the worse");
    computer.shutdown.cancel();
}

/// A server that takes connections and does something to each.
async fn raw<F: Future<Output = ()> + Send>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move { serve(stream).await });
        }
    });
    format!("http://{address}/")
}

/// Writes these bytes to whoever has sent something, and hangs up.
async fn says(bytes: &'static [u8]) -> String {
    raw(move |mut stream| async move {
        let mut read = [0; 1024];
        if stream.read(&mut read).await.is_ok_and(|read| read > 0) {
            let _ = stream.write_all(bytes).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_may_have_run() {
    for bytes in [
        &b""[..],
        b"\x16\x03\x01garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 999999 What\r\n\r\n",
    ] {
        let url = says(bytes).await;
        let computer = computer(with(http(&url, &["f"]))).await;
        let error = computer.invoke(call("f", "")).await.unwrap_err();
        assert_eq!(error.reason, Reason::Disconnected, "{bytes:?}: {error}");
        assert!(error.message.contains("may have run"), "{error}");
        computer.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_take_turns_within_limits_and_give_up_in_time() {
    let server = Server::start(|asked| tell_after(Duration::from_secs(60), 200, asked.body)).await;
    let limits =
        Config { workers: 1, queue_max: 1, payload_bytes_total_max: 100, ..with(http(&server.url("/"), &["f"])) };
    let computer = computer(limits).await;
    let late = computer.invoke(within(100, call("f", ""))).await.unwrap_err();
    assert_eq!(late.reason, Reason::Late, "{late}");
    let before = server.asked("/").len();
    let running = begin(&computer, call("f", vec![b'x'; 60]));
    until("it runs", || server.asked("/").len() > before).await;
    let waiting = begin(&computer, within(400, call("f", "")));
    let full = async || match computer.invoke(within(300, call("f", ""))).await.unwrap_err() {
        error if error.reason == Reason::QueueFull => true,
        error => panic!("{error}"),
    };
    // One of the two waits, the other finds no place.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(full().await);
    assert_eq!(waiting.await.unwrap().unwrap_err().reason, Reason::Late);
    let bytes = computer.invoke(call("f", vec![b'x'; 60])).await.unwrap_err();
    assert_eq!(bytes.reason, Reason::OutOfBudget, "{bytes}");
    running.abort();
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_the_request() {
    let (begun, gone) = (CancellationToken::new(), CancellationToken::new());
    let (at_begin, at_end) = (begun.clone(), gone.clone());
    let url = raw(move |mut stream| {
        let (begun, gone) = (at_begin.clone(), at_end.clone());
        async move {
            let mut read = [0; 1024];
            // A look at whether anybody is there says nothing.
            while let Ok(count) = stream.read(&mut read).await {
                match count {
                    0 if begun.is_cancelled() => return gone.cancel(),
                    0 => return,
                    _ => begun.cancel(),
                }
            }
            gone.cancel();
        }
    })
    .await;
    let config = with(http(&url, &["f"]));
    let telemetry = config.telemetry.clone();
    let computer = computer(config).await;
    let running = begin(&computer, call("f", "hello"));
    begun.cancelled().await;
    running.abort();
    tokio::time::timeout(LONG, gone.cancelled()).await.expect("the request is ended");
    until("it is counted", || {
        telemetry.metrics().unwrap().contains(r#"nigh_computer_calls_total{function="f",outcome="cancelled"} 1"#)
    })
    .await;
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_rests_on_its_own_measurements() {
    let server = Server::start(|asked| {
        let wait = Duration::from_millis(asked.body.len() as u64 / 100);
        tell_after(wait, 200, "")
    })
    .await;
    let computer = computer(with(http(&server.url("/"), &["f"]))).await;
    let dry = async |bytes| {
        let asked = Call { dry_run: true, ..call("f", vec![b'x'; bytes]) };
        match computer.invoke(asked).await.unwrap().outcome {
            Outcome::Estimate(estimate) => estimate,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(dry(1000).await, Estimate::default());
    for _ in 0..8 {
        computer.invoke(call("f", vec![b'x'; 1000])).await.unwrap();
        computer.invoke(call("f", vec![b'x'; 9000])).await.unwrap();
    }
    let (small, large) = (dry(1000).await, dry(9000).await);
    assert!((small.samples, small.similar, small.modelled) == (16, 8, false), "{small:?}");
    assert!(large.run >= Duration::from_millis(90) && small.run >= Duration::from_millis(10), "{small:?} {large:?}");
    assert!(small.run < large.run, "{small:?} {large:?}");
    assert_eq!(server.asked("/").len(), 16, "a dry run asks nobody");
    computer.shutdown.cancel();
}

fn announced(controller: &FakeController) -> Vec<String> {
    if *controller.withdrawn.lock() {
        return Vec::new();
    }
    controller.announced.lock().as_ref().map(|info| info.own_functions.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_openfaas_gateway_lists_is_announced_and_its_password_stays_with_it() {
    let listed =
        Arc::new(Mutex::new(r#"[{"name":"a"},{"name":"b","namespace":"openfaas-fn"},{"name":"Odd Name"}]"#.to_owned()));
    let told = listed.clone();
    let server = Server::start(move |asked| match (asked.path.as_str(), asked.header("authorization")) {
        ("/system/functions", "Basic YWRtaW46czNjcmV0") => tell(200, &[], told.lock().clone()),
        ("/system/functions", _) => tell(401, &[], ""),
        ("/function/gone", _) => tell(404, &[], ""),
        _ => tell(200, &[], "an answer"),
    })
    .await;
    let (controller, at) = FakeController::start().await;
    let settings = RemoteSettings {
        credentials: Some("admin:s3cret".parse().unwrap()),
        refresh: Duration::from_millis(50),
        ..http(&server.url("/function/{function}"), &[])
    };
    let computer = computer(Config { controller: Some(at.into()), ..with(settings) }).await;
    until("they are announced", || announced(&controller) == ["a", "b"]).await;
    assert_eq!(payload(computer.invoke(call("a", "x")).await), "an answer");
    assert_eq!(server.asked("/function/a")[0].header("authorization"), "", "functions see all headers");

    *listed.lock() = r#"[{"name":"b"},{"name":"c","namespace":"staging"}]"#.to_owned();
    until("the change is announced", || announced(&controller) == ["b", "c.staging"]).await;
    assert_eq!(computer.invoke(call("a", "x")).await.unwrap_err().reason, Reason::UnknownFunction);
    assert_eq!(payload(computer.invoke(call("c.staging", "x")).await), "an answer");
    assert_eq!(server.asked("/function/c.staging").len(), 1);

    // Without a function it would be taken for one that runs what is deployed.
    *listed.lock() = "[]".to_owned();
    until("it is withdrawn", || *controller.withdrawn.lock()).await;
    *controller.withdrawn.lock() = false;
    *listed.lock() = r#"[{"name":"a"}]"#.to_owned();
    until("it is announced again", || announced(&controller) == ["a"]).await;
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_down_is_told_of_and_found_again() {
    let server = Server::start(|asked| tell(200, &[], asked.body)).await;
    let address = server.address;
    let (controller, at) = FakeController::start().await;
    let config = Config { controller: Some(at.into()), ..with(http(&server.url("/{function}"), &["f"])) };
    let telemetry = config.telemetry.clone();
    let computer = computer(config).await;
    until("it is announced", || announced(&controller) == ["f"]).await;
    server.stop.cancel();
    until("its connections are refused", || std::net::TcpStream::connect(address).is_err()).await;
    // One may have been lost in a connection that just ended.
    let mut reasons: HashMap<Reason, u32> = HashMap::new();
    while telemetry.readiness().is_ok() {
        let error = computer.invoke(call("f", "")).await.unwrap_err();
        *reasons.entry(error.reason).or_default() += 1;
    }
    assert!(reasons[&Reason::Unreachable] >= 3 && reasons.len() <= 2, "{reasons:?}");
    let refused = computer.invoke(call("f", "")).await.unwrap_err();
    assert!(refused.reason == Reason::Unreachable && refused.retry_after.is_some(), "{refused:?}");
    until("it is withdrawn", || *controller.withdrawn.lock()).await;
    assert!(telemetry.metrics().unwrap().contains("nigh_computer_remote_up 0"));

    *controller.withdrawn.lock() = false;
    *controller.announced.lock() = None;
    let again = Server::start_at(TcpListener::bind(address).await.unwrap(), |asked| tell(200, &[], asked.body));
    until("it is announced again", || announced(&controller) == ["f"]).await;
    assert_eq!(payload(computer.invoke(call("f", "hello")).await), "hello");
    assert!(telemetry.metrics().unwrap().contains("nigh_computer_remote_up 1"));
    drop(again);
    computer.shutdown.cancel();
}

#[tokio::test]
async fn settings_that_contradict_themselves_do_not_start() {
    let server_less = |settings: RemoteSettings| async {
        let error = start(with(settings)).await.ended.await.unwrap().unwrap_err();
        match error {
            Error::Config(why) => why,
            other => panic!("{other}"),
        }
    };
    let no_list = server_less(http("http://127.0.0.1:1/{function}", &[])).await;
    assert!(no_list.contains("--function"), "{no_list}");
    let one_url = server_less(http("http://127.0.0.1:1/", &["a", "b"])).await;
    assert!(one_url.contains("{function}"), "{one_url}");
    let untrusted = server_less(http("https://127.0.0.1:1/", &["a"])).await;
    assert!(untrusted.contains("TLS"), "{untrusted}");
    let root = "http://127.0.0.1:1".parse().unwrap();
    let api = RemoteApi::OpenWhisk { root, namespace: "_".into(), payload_only: false };
    let nobody = server_less(RemoteSettings { api, ..http("http://127.0.0.1:1/", &["a"]) }).await;
    assert!(nobody.contains("--auth-file"), "{nobody}");
}
