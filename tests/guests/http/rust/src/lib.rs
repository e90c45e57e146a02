//! An http function that does what its path says: well behaved, and otherwise.

use std::io::{Read, Write};
use std::time::Duration;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

wasip2::http::proxy::export!(Handler);

const PART_BYTES: usize = 16 << 10;

struct Handler;

impl Guest for Handler {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let asked = request.path_with_query().unwrap_or_default();
        let (path, query) = asked.split_once('?').unwrap_or((&asked, ""));
        match path {
            "/" | "/echo" => echo(&request, out),
            "/hello" => whole(out, 200, &[], b"Hello, WASI!"),
            "/about" => about(&request, out, path, query),
            "/fetch" => match fetch(query) {
                Ok((status, text)) => whole(out, 200, &[], format!("{status}: {text}").as_bytes()),
                Err(code) => whole(out, 502, &[], format!("failed: {code:?}").as_bytes()),
            },
            "/fetch-at-once" => fetch_at_once(out, query),
            "/count" => whole(out, 200, &[], count().to_string().as_bytes()),
            "/seed" => whole(out, 200, &[], seed().to_string().as_bytes()),
            "/status" => whole(out, query.parse().unwrap_or(400), &[], b"as you like"),
            "/log" => {
                println!("printed");
                eprintln!("complained");
                whole(out, 204, &[], b"");
            }
            "/silent" => {}
            "/unable" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("not today".to_owned())))),
            "/trap" => core::arch::wasm32::unreachable(),
            "/trap-midway" => {
                let (_body, mut output) = begin(out, 200, &[]);
                output.write_all(b"so far so good").unwrap();
                Write::flush(&mut output).unwrap();
                core::arch::wasm32::unreachable()
            }
            "/unfinished" => {
                let (body, mut output) = begin(out, 200, &[]);
                output.write_all(b"to be continued").unwrap();
                Write::flush(&mut output).unwrap();
                std::mem::forget((body, output));
            }
            "/large" => large(out, query.parse().unwrap_or(0)),
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/grow" => {
                let mut all: Vec<Vec<u8>> = Vec::new();
                loop {
                    all.push(vec![1; 1 << 20]);
                    std::hint::black_box(&all);
                }
            }
            "/recurse" => whole(out, 200, &[], recurse(1).to_string().as_bytes()),
            "/sleep" => {
                std::thread::sleep(Duration::from_millis(query.parse().unwrap_or(0)));
                whole(out, 200, &[], b"rested");
            }
            "/work-after" => {
                whole(out, 200, &[], b"answered");
                std::thread::sleep(Duration::from_millis(50));
                println!("worked after the answer");
            }
            _ => whole(out, 404, &[], b"no such page\n"),
        }
    }
}

fn begin(
    out: ResponseOutparam,
    status: u16,
    headers: &[(&str, &str)],
) -> (OutgoingBody, wasip2::io::streams::OutputStream) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let output = body.write().unwrap();
    (body, output)
}

fn whole(out: ResponseOutparam, status: u16, headers: &[(&str, &str)], bytes: &[u8]) {
    let (body, mut output) = begin(out, status, headers);
    // A caller that has gone away is no reason to fail.
    let _ = output.write_all(bytes).and_then(|()| Write::flush(&mut output));
    drop(output);
    let _ = OutgoingBody::finish(body, None);
}

/// Passes the body on as it comes.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let kind = request.headers().get("content-type");
    let kind = kind.first().map(|kind| String::from_utf8_lossy(kind).into_owned());
    let headers: Vec<(&str, &str)> = kind.iter().map(|kind| ("content-type", kind.as_str())).collect();
    let incoming = request.consume().unwrap();
    let mut input = incoming.stream().unwrap();
    let (body, mut output) = begin(out, 200, &headers);
    let mut part = vec![0; PART_BYTES];
    loop {
        match Read::read(&mut input, &mut part) {
            Ok(0) => break,
            Ok(bytes) => {
                output.write_all(&part[..bytes]).unwrap();
                Write::flush(&mut output).unwrap();
            }
            Err(error) => {
                eprintln!("the request broke off: {error}");
                return;
            }
        }
    }
    drop(output);
    OutgoingBody::finish(body, None).unwrap();
}

fn about(request: &IncomingRequest, out: ResponseOutparam, path: &str, query: &str) {
    let mine = request.headers().get("x-mine").first().map(|value| String::from_utf8_lossy(value).into_owned());
    let names: Vec<String> = request.headers().entries().into_iter().map(|(name, _)| name).collect();
    let text = format!(
        "{:?} {path} {query} {} {} [{}]",
        request.method(),
        request.authority().unwrap_or_default(),
        mine.unwrap_or_default(),
        names.join(" ")
    );
    let headers = [("x-made-by", "Rust"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("nigh-computer", "forged")];
    whole(out, 201, &headers, text.as_bytes());
}

/// Asks `host:port/path`.
fn fetch(target: &str) -> Result<(u16, String), ErrorCode> {
    let answer = send(target)?;
    answer.subscribe().block();
    read(answer)
}

fn send(target: &str) -> Result<wasip2::http::types::FutureIncomingResponse, ErrorCode> {
    let (authority, path) = target.split_at(target.find('/').unwrap_or(target.len()));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).unwrap();
    outgoing_handler::handle(request, None)
}

fn read(answer: wasip2::http::types::FutureIncomingResponse) -> Result<(u16, String), ErrorCode> {
    let response = answer.get().unwrap().unwrap()?;
    let body: IncomingBody = response.consume().unwrap();
    let mut input = body.stream().unwrap();
    let mut text = Vec::new();
    match input.read_to_end(&mut text) {
        Ok(_) => Ok((response.status(), String::from_utf8_lossy(&text).into_owned())),
        Err(error) => Err(ErrorCode::InternalError(Some(error.to_string()))),
    }
}

/// Sends so many requests at once, and tells how many were refused.
fn fetch_at_once(out: ResponseOutparam, query: &str) {
    let (count, target) = query.split_once('&').unwrap();
    let sent: Vec<_> = (0..count.parse().unwrap()).map(|_| send(target)).collect();
    let mut refused = 0;
    for future in sent {
        let answered = future.and_then(|future| {
            future.subscribe().block();
            future.get().unwrap().unwrap()
        });
        refused += u32::from(matches!(answered, Err(ErrorCode::ConnectionLimitReached)));
    }
    whole(out, 200, &[], refused.to_string().as_bytes());
}

/// Calls that this instance has had.
/// What hashing begins with in this instance: random numbers of its host.
fn seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}

fn count() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

fn large(out: ResponseOutparam, bytes: usize) {
    let (body, mut output) = begin(out, 200, &[]);
    let part = vec![b'x'; PART_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PART_BYTES);
        if output.write_all(&part[..now]).and_then(|()| Write::flush(&mut output)).is_err() {
            return;
        }
        left -= now;
    }
    drop(output);
    let _ = OutgoingBody::finish(body, None);
}

/// Uses up the stack of calls alone, and nothing of that in memory.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    static END: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if depth == END.load(std::sync::atomic::Ordering::Relaxed) {
        return 0;
    }
    recurse(depth + 1).wrapping_mul(31).rotate_left((depth % 7) as u32)
}
