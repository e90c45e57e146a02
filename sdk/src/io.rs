//! What goes into a function and what comes out of it.

use std::fmt;
use std::str::FromStr;

/// The header that tells of one part of a payload: `STEP=BYTES`.
const PART_HEADER: &str = "nigh-part";

/// One call's input: a payload and string headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    payload: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A request with this payload and no headers. Functions receive requests ready made; tests make them so.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), headers: Vec::new() }
    }

    pub(crate) fn from_parts(payload: Vec<u8>, headers: Vec<(String, String)>) -> Self {
        Self { payload, headers }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload itself, without a copy.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The payload as text.
    ///
    /// # Errors
    /// `bad-input` where the payload is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.payload)
            .map_err(|at| Error::bad_input(format!("the payload is not UTF-8 text from byte {} on", at.valid_up_to())))
    }

    /// The value of a header, the first of several; names are compared without regard to ASCII case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// A header's value parsed, or `default` where the header is absent.
    ///
    /// # Errors
    /// `bad-input`, naming the header and what is wrong with it, where the value does not parse.
    pub fn header_or<T>(&self, name: &str, default: T) -> Result<T, Error>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match self.header(name) {
            None => Ok(default),
            Some(value) => {
                value.trim().parse().map_err(|why| Error::bad_input(format!("header {name}: {value:?}: {why}")))
            }
        }
    }

    /// The payload in its parts, each with the name of the step of a flow that answered it. A request that is not given by
    /// several steps is one part without a name.
    ///
    /// ```
    /// use nigh_sdk::Request;
    ///
    /// let request = Request::new("leftright!").with_header("nigh-part", "a=4").with_header("nigh-part", "b=6");
    /// assert_eq!(request.parts().unwrap(), [("a", &b"left"[..]), ("b", &b"right!"[..])]);
    /// ```
    ///
    /// # Errors
    /// `bad-input` where the parts that the headers tell of do not make up the payload.
    pub fn parts(&self) -> Result<Vec<(&str, &[u8])>, Error> {
        let mut rest = &self.payload[..];
        let mut parts = Vec::new();
        for (_, value) in self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(PART_HEADER)) {
            let part = value.rsplit_once('=').and_then(|(step, bytes)| {
                let (part, after) = rest.split_at_checked(bytes.parse().ok()?)?;
                rest = after;
                Some((step, part))
            });
            parts.push(part.ok_or_else(|| {
                Error::bad_input(format!("header {PART_HEADER}: {value:?}: expected STEP=BYTES of the payload"))
            })?);
        }
        match (parts.is_empty(), rest.is_empty()) {
            (true, _) => Ok(vec![("", rest)]),
            (false, true) => Ok(parts),
            (false, false) => Err(Error::bad_input(format!(
                "{} bytes of the payload are of no part that a header tells of",
                rest.len()
            ))),
        }
    }

    /// All headers, in the order they arrived.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A function's answer: a payload and string headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    payload: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Response {
    /// An answer with these bytes.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), headers: Vec::new() }
    }

    /// An answer of text, with `content-type: text/plain; charset=utf-8`.
    pub fn text(payload: impl Into<String>) -> Self {
        Self::new(payload.into()).with_header("content-type", "text/plain; charset=utf-8")
    }

    /// An answer of JSON text, with `content-type: application/json`. The text is passed on as it is.
    pub fn json(payload: impl Into<String>) -> Self {
        Self::new(payload.into()).with_header("content-type", "application/json")
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload itself, without a copy.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The value of a header, the first of several; names are compared without regard to ASCII case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// All headers, in the order they were added.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Why a function gave no answer. The caller sees kind and message; the platform treats it as an outcome of the
/// function, never as a fault of the computer that ran it.
///
/// Any error type converts into it with `?`, as kind `failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: String,
    message: String,
}

impl Error {
    /// An error of a kind that callers can branch on (short, lower case, words joined by hyphens) and a message that
    /// tells them what to do.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }

    /// The input is at fault; the same call will fail again. Kind `bad-input`.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new("bad-input", message)
    }

    /// The function could not do its work. Kind `failed`.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new("failed", message)
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

// `Error` itself is no `std::error::Error`: that is what allows this conversion for all that are.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_their_case() {
        let request = Request::new("").with_header("Scale-Factor", "1.25");
        assert_eq!(request.header("scale-factor"), Some("1.25"));
        assert_eq!(request.header_or("scale-factor", 1.1).unwrap(), 1.25);
        assert_eq!(request.header_or("min-neighbors", 3).unwrap(), 3);
    }

    #[test]
    fn a_header_that_does_not_parse_is_the_callers_fault_and_named() {
        let error = Request::new("").with_header("min-size", "big").header_or("min-size", 30).unwrap_err();
        assert_eq!(error.kind(), "bad-input");
        assert!(error.message().contains("min-size") && error.message().contains("big"), "{error}");
    }

    #[test]
    fn parts_that_do_not_make_up_the_payload_are_refused() {
        let parts = |payload: &str, headers: &[&str]| {
            let request =
                headers.iter().fold(Request::new(payload), |request, value| request.with_header("nigh-part", *value));
            request.parts().map(|parts| parts.len())
        };
        assert_eq!(
            (parts("abc", &[]), parts("", &["a=0", "b=0"]), parts("abc", &["a=1", "b=2"])),
            (Ok(1), Ok(2), Ok(2))
        );
        for (payload, headers) in
            [("abc", &["a=2"][..]), ("abc", &["a=4"]), ("abc", &["a=1", "b=3"]), ("", &["a"]), ("", &["a=x"])]
        {
            assert_eq!(parts(payload, headers).unwrap_err().kind(), "bad-input", "{headers:?}");
        }
    }

    #[test]
    fn text_must_be_utf8() {
        assert_eq!(Request::new("grüß").text().unwrap(), "grüß");
        assert_eq!(Request::new(vec![b'a', 0xff]).text().unwrap_err().kind(), "bad-input");
    }

    #[test]
    fn any_error_becomes_a_function_error() {
        fn parse(text: &str) -> Result<i32, Error> {
            Ok(text.parse::<i32>()?)
        }
        assert_eq!(parse("x").unwrap_err().kind(), "failed");
    }
}
