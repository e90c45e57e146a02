//! From an HTTP request to a call of a function that is no http function.
//!
//! * The body is the payload.
//! * Every query parameter is a header for the function, and so is every request header except those about the connection
//!   (hop-by-hop, `host`, `content-length`, `expect`) and `nigh-*`. Query parameters come first, so they win where both
//!   have one name.
//! * `cdn-loop` also says how often a call was passed on ([`cdn_loop`]).
//! * `nigh-*` headers are for the platform: `nigh-timeout` (`5s`, `250ms`), `nigh-retry-safe` and `nigh-dry-run` (`true`,
//!   `false`), `nigh-call-id`, `nigh-priority` (`low`, `normal`,
//!   `high`), `nigh-application` (whose states it reads and writes), `nigh-callback` (where the outcome of a call that runs later is posted to). An unknown one is refused: a
//!   misspelt wish must not be lost silently.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::asynchronous::CallbackUrl;
use crate::call::{Call, CallId, CallLimits, Headers, Priority};
use crate::cdn_loop;
use crate::exchange::Gathered;
use crate::intake::{Share, announced_bytes};
use crate::name::FunctionName;
use crate::state::ApplicationName;
use crate::status::{PlatformError, Reason};

/// Headers about a connection rather than what travels on it (RFC 9110, section 7.6.1), and `content-length`, which
/// follows from the body.
pub(super) const ABOUT_THE_CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Further headers that are spent once the request has arrived.
const ABOUT_THE_REQUEST: [&str; 2] = ["expect", "host"];

/// Whether a header, its name in lower case, is of no use to who a request is passed on to: it is about the connection, or spent once
/// the request has arrived.
pub fn is_spent(name: &str) -> bool {
    ABOUT_THE_CONNECTION.contains(&name) || ABOUT_THE_REQUEST.contains(&name)
}
/// Headers for the platform begin so.
pub(super) const PLATFORM_PREFIX: &str = "nigh-";

/// All of a call but its payload.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) id: CallId,
    pub(super) deadline: Instant,
    pub(super) function: FunctionName,
    headers: Headers,
    hops: u32,
    dry_run: bool,
    retry_safe: bool,
    pub(super) priority: Priority,
    application: Option<ApplicationName>,
    /// Who is told of the outcome, where the call runs later.
    pub(super) callback: Option<CallbackUrl>,
}

impl Head {
    /// Checks a request's query and headers.
    pub(super) fn new(
        function: FunctionName,
        parts: &Parts,
        limits: &CallLimits,
        arrived: Instant,
    ) -> Result<Self, PlatformError> {
        let query = parts.uri.query().unwrap_or_default();
        let mut headers: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let wishes = Wishes::of(&parts.headers)?;
        for (name, value) in &parts.headers {
            let name = name.as_str();
            if !is_spent(name) && !name.starts_with(PLATFORM_PREFIX) {
                headers.push((name.to_owned(), text(name, value)?.to_owned()));
            }
        }
        Ok(Self {
            deadline: wishes.deadline(limits, arrived),
            id: wishes.id.unwrap_or_else(CallId::random),
            function,
            headers: Headers::new(headers)?,
            hops: cdn_loop::hops_of(&parts.headers, limits)?,
            dry_run: wishes.dry_run,
            retry_safe: wishes.retry_safe.unwrap_or(false),
            priority: wishes.priority,
            application: wishes.application,
            callback: wishes.callback,
        })
    }

    pub(super) fn into_call(self, payload: Bytes) -> Call {
        Call {
            headers: self.headers,
            hops: self.hops,
            dry_run: self.dry_run,
            retry_safe: self.retry_safe,
            priority: self.priority,
            application: self.application,
            ..Call::until(self.deadline, self.id, self.function, payload)
        }
    }
}

/// What a request wishes of the platform.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) id: Option<CallId>,
    pub(super) dry_run: bool,
    pub(super) retry_safe: Option<bool>,
    pub(super) priority: Priority,
    pub(super) application: Option<ApplicationName>,
    callback: Option<CallbackUrl>,
    timeout: Option<Duration>,
}

impl Wishes {
    /// Reads the headers for the platform.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, PlatformError> {
        let mut wishes = Self::default();
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with(PLATFORM_PREFIX)) {
            match name.as_str() {
                "nigh-timeout" => wishes.timeout = Some(duration(value)?),
                "nigh-dry-run" => wishes.dry_run = flag("nigh-dry-run", value)?,
                "nigh-retry-safe" => wishes.retry_safe = Some(flag("nigh-retry-safe", value)?),
                "nigh-call-id" => wishes.id = Some(text("nigh-call-id", value)?.parse()?),
                "nigh-callback" => wishes.callback = Some(text("nigh-callback", value)?.parse()?),
                "nigh-application" => wishes.application = Some(text("nigh-application", value)?.parse()?),
                "nigh-priority" => wishes.priority = text("nigh-priority", value)?.parse()?,
                other => return Err(unknown_wish(other)),
            }
        }
        Ok(wishes)
    }

    /// When the answer stops being of use.
    pub(super) fn deadline(&self, limits: &CallLimits, arrived: Instant) -> Instant {
        arrived + limits.time(self.timeout)
    }
}

/// A text as one segment of a path.
pub(super) fn path_segment(text: &str) -> impl std::fmt::Display {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

/// Takes `/function/{name}` apart from what follows, if anything does; both as they stand on the wire.
pub(super) fn name_and_path(path: &str) -> (&str, Option<&str>) {
    let rest = path.strip_prefix("/function/").unwrap_or_default();
    match rest.find('/') {
        Some(end) => (&rest[..end], Some(&rest[end..])),
        None => (rest, None),
    }
}

/// The call that a request with this head and no body is.
///
/// # Errors
/// Why it is none.
pub fn call_for_fuzzing(
    function: FunctionName,
    parts: &Parts,
    limits: &CallLimits,
    arrived: Instant,
) -> Result<Call, PlatformError> {
    Head::new(function, parts, limits, arrived).map(|head| head.into_call(Bytes::new()))
}

/// Reads the body, which has to be within its limit and to arrive in time; it counts as long as `share` is held.
pub(in crate::ingress) async fn payload<B: Body<Data = Bytes, Error: std::fmt::Display>>(
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    share: &Share,
    until: Instant,
) -> Result<Bytes, PlatformError> {
    if announced_bytes(headers).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    tokio::time::timeout_at(until.into(), collect(body, bytes_max, share)).await.unwrap_or_else(|_| {
        let message = "the deadline passed before the whole body had arrived; send it faster, or raise nigh-timeout";
        Err(PlatformError::new(Reason::Late, message))
    })
}

async fn collect<B: Body<Data = Bytes, Error: std::fmt::Display>>(
    body: B,
    bytes_max: usize,
    share: &Share,
) -> Result<Bytes, PlatformError> {
    let mut body = pin!(body);
    let mut gathered = Gathered::default();
    while let Some(frame) = body.frame().await {
        let broken = |error| PlatformError::malformed(format!("the body did not arrive whole: {error}"));
        // Trailers are nothing that a function is told of.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if gathered.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        share.take(data.len() as u64)?;
        gathered.push(data);
    }
    Ok(gathered.into_bytes())
}

fn too_large(bytes_max: usize) -> PlatformError {
    PlatformError::new(Reason::TooLarge, format!("the body is over the {bytes_max} bytes that are taken here"))
}

fn text<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, PlatformError> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| PlatformError::malformed(format!("header {name} is not UTF-8")))
}

fn flag(name: &str, value: &HeaderValue) -> Result<bool, PlatformError> {
    let value = text(name, value)?;
    value.parse().map_err(|_| PlatformError::malformed(format!("{name}: {value:?} is neither true nor false")))
}

fn duration(value: &HeaderValue) -> Result<Duration, PlatformError> {
    let value = text("nigh-timeout", value)?;
    let malformed = |why| PlatformError::malformed(format!("nigh-timeout: {value:?} {why}; write 5s or 250ms"));
    match humantime::parse_duration(value) {
        Ok(duration) if duration.is_zero() => Err(malformed("leaves no time".to_owned())),
        Ok(duration) => Ok(duration),
        Err(error) => Err(malformed(format!("is no duration ({error})"))),
    }
}

fn unknown_wish(name: &str) -> PlatformError {
    PlatformError::malformed(format!(
        "unknown header {name}; the platform takes nigh-timeout, nigh-retry-safe, nigh-dry-run, nigh-call-id, \
         nigh-priority, nigh-application and nigh-callback"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Result<Head, PlatformError> {
        let mut request = http::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Head::new("echo".parse().unwrap(), &parts, &CallLimits::default(), Instant::now())
    }

    #[test]
    fn query_and_headers_become_headers_of_the_function_and_the_query_wins() {
        let head = head(
            "/function/echo?scale-factor=1.2&name=Zo%C3%AB+X",
            &[("Scale-Factor", "9"), ("content-type", "image/png"), ("host", "h"), ("connection", "close")],
        );
        let headers = head.unwrap().headers;
        assert_eq!(headers.get("scale-factor"), Some("1.2"));
        assert_eq!(headers.get("name"), Some("Zoë X"));
        assert_eq!(headers.get("content-type"), Some("image/png"));
        assert_eq!(headers.iter().len(), 4);
    }

    #[test]
    fn wishes_to_the_platform_are_understood() {
        let wishes = [
            ("nigh-timeout", "250ms"),
            ("nigh-retry-safe", "true"),
            ("nigh-dry-run", "false"),
            ("nigh-call-id", "7"),
            ("nigh-priority", "high"),
        ];
        let head = head("/", &wishes).unwrap();
        let left = head.deadline.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_millis(100) && left <= Duration::from_millis(250), "{left:?}");
        assert!(head.retry_safe && !head.dry_run && head.headers.iter().len() == 0);
        assert_eq!((head.id.as_str(), head.priority), ("7", Priority::High));
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_refused() {
        for (name, value) in [
            ("nigh-timeout", "soon"),
            ("nigh-timeout", "0s"),
            ("nigh-timeout", "-1s"),
            ("nigh-retry-safe", "yes"),
            ("nigh-call-id", "two words"),
            ("nigh-priority", "urgent"),
            ("nigh-timeuot", "5s"),
        ] {
            assert_eq!(head("/", &[(name, value)]).unwrap_err().reason, Reason::Malformed, "{name}: {value}");
        }
        assert_eq!(head("/", &[("x", "\u{1F980}")]).unwrap().headers.get("x"), Some("\u{1F980}"));
    }

    #[test]
    fn a_functions_name_ends_where_its_own_paths_begin() {
        assert_eq!(name_and_path("/function/echo"), ("echo", None));
        assert_eq!(name_and_path("/function/echo/"), ("echo", Some("/")));
        assert_eq!(name_and_path("/function/echo/a%2Fb/c"), ("echo", Some("/a%2Fb/c")));
        assert_eq!(name_and_path("/function//a"), ("", Some("/a")));
    }

    #[test]
    fn headers_are_bounded() {
        let many: String = (0..65).map(|n| format!("q{n}=1&")).collect();
        assert_eq!(head(&format!("/?{many}"), &[]).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(head("/?=nameless", &[]).unwrap_err().reason, Reason::Malformed);
        assert_eq!(head("/?a=%00", &[]).unwrap_err().reason, Reason::Malformed);
    }
}
