//! Signatures of AWS, version 4: whether a request was signed with a credential's key. Who may come in by `USER:KEY` signs with USER
//! as the id of an access key and KEY as the key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::request::Parts;
use http::{HeaderMap, header};
use nigh_proto::Digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the clocks of both sides may be apart.
const SKEW_MAX: Duration = Duration::from_secs(5 * 60);
/// What stands for itself in a signed path or query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is wrong with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// There is none, or it does not have its form.
    Missing,
    /// Made too long ago, or by another clock.
    Expired,
}

/// A request's signature, and what was signed.
#[derive(Debug)]
pub(super) struct Signed {
    /// Whose key it says it was made with.
    pub(super) key_id: String,
    scope: [String; 3],
    to_sign: String,
    signature: Vec<u8>,
}

impl Signed {
    /// Reads a request's signature.
    pub(super) fn of(parts: &Parts, body: &[u8], now: SystemTime) -> Result<Self, Unsigned> {
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|given| given.to_str().ok());
        let given = given.and_then(|given| given.strip_prefix(ALGORITHM)).ok_or(Unsigned::Missing)?;
        let field = |name: &str| {
            let mut fields = given.split(',').filter_map(|field| field.trim().split_once('='));
            fields.find(|(have, _)| *have == name).map(|(_, value)| value).ok_or(Unsigned::Missing)
        };
        let mut credential = field("Credential")?.split('/');
        let mut next = || credential.next().filter(|part| !part.is_empty()).map(str::to_owned).ok_or(Unsigned::Missing);
        let (key_id, scope) = (next()?, [next()?, next()?, next()?]);
        let names: Vec<&str> = field("SignedHeaders")?.split(';').collect();
        let signature = unhex(field("Signature")?).ok_or(Unsigned::Missing)?;
        let date = parts.headers.get("x-amz-date").and_then(|date| date.to_str().ok()).ok_or(Unsigned::Missing)?;
        let at = time_of(date).ok_or(Unsigned::Missing)?;
        let apart = now.duration_since(at).unwrap_or_else(|error| error.duration());
        // What is not signed is not vouched for; the host keeps a request from being played to somebody else.
        if !names.contains(&"host") || !names.contains(&"x-amz-date") || !date.starts_with(&scope[0]) {
            return Err(Unsigned::Missing);
        }
        if apart > SKEW_MAX {
            return Err(Unsigned::Expired);
        }
        let canonical = canonical(parts, &names, body).ok_or(Unsigned::Missing)?;
        let [day, region, service] = &scope;
        let digest = Digest::of(canonical.as_bytes());
        let to_sign = format!("{ALGORITHM}\n{date}\n{day}/{region}/{service}/aws4_request\n{digest}");
        Ok(Self { key_id, scope, to_sign, signature })
    }

    /// Whether it was made with this key.
    pub(super) fn is_by(&self, key: &str) -> bool {
        let mut derived = format!("AWS4{key}").into_bytes();
        for part in self.scope.iter().map(String::as_str).chain(["aws4_request"]) {
            derived = mac(&derived, part).finalize().into_bytes().to_vec();
        }
        mac(&derived, &self.to_sign).verify_slice(&self.signature).is_ok()
    }
}

fn mac(key: &[u8], message: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    mac
}

/// A request in the one form in which it is signed.
fn canonical(parts: &Parts, names: &[&str], body: &[u8]) -> Option<String> {
    // Path segments as they stand on the wire, encoded once more.
    let path: Vec<_> = parts.uri.path().split('/').map(encoded).collect();
    let query = parts.uri.query().unwrap_or_default();
    let mut query: Vec<_> = form_urlencoded::parse(query.replace('+', "%2B").as_bytes())
        .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
        .collect();
    query.sort_unstable();
    let mut headers = String::new();
    for name in names {
        let text = header_text(&parts.headers, &parts.uri, name)?;
        headers.extend([name, ":", text.as_str(), "\n"]);
    }
    let (method, path, query) = (&parts.method, path.join("/"), query.join("&"));
    Some(format!("{method}\n{path}\n{query}\n{headers}\n{}\n{}", names.join(";"), Digest::of(body)))
}

/// A header's values as they are signed: blanks together are one.
fn header_text(headers: &HeaderMap, uri: &http::Uri, name: &str) -> Option<String> {
    let one = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| value.to_str().map(one)).collect::<Result<_, _>>().ok()?;
    match values.is_empty() {
        false => Some(values.join(",")),
        // Over HTTP/2 the host is no header.
        true if name == "host" => uri.authority().map(ToString::to_string),
        true => None,
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// `20151230T123600Z`.
fn time_of(date: &str) -> Option<SystemTime> {
    let fits = date.len() == 16
        && date.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if !fits {
        return None;
    }
    let (day, time) = (&date[..8], &date[9..15]);
    let written = format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..4], &time[4..]);
    let time = humantime::parse_rfc3339(&written).ok()?;
    time.duration_since(UNIX_EPOCH).is_ok().then_some(time)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    /// The example of AWS's documentation (`get-vanilla-query-order-key-case`), with its key.
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";

    fn parts(uri: &str, authorization: &str) -> Parts {
        let request =
            Request::get(uri).header("host", "example.amazonaws.com").header("x-amz-date", "20150830T123600Z");
        request.header("authorization", authorization).body(()).unwrap().into_parts().0
    }

    fn then() -> SystemTime {
        time_of("20150830T123600Z").unwrap()
    }

    #[test]
    fn a_signature_made_elsewhere_is_understood() {
        let signed = Signed::of(&parts("/?Param2=value2&Param1=value1", AUTHORIZATION), b"", then()).unwrap();
        assert_eq!(signed.key_id, "AKIDEXAMPLE");
        assert!(signed.is_by(KEY) && !signed.is_by("another"));
        for (uri, body) in [
            ("/?Param1=value1", &b""[..]),
            ("/x?Param2=value2&Param1=value1", b""),
            ("/?Param2=value2&Param1=value1", b"x"),
        ] {
            assert!(!Signed::of(&parts(uri, AUTHORIZATION), body, then()).unwrap().is_by(KEY), "{uri}");
        }
    }

    #[test]
    fn an_old_signature_is_worth_nothing() {
        let of = |now| Signed::of(&parts("/", AUTHORIZATION), b"", now).map(drop);
        assert_eq!(of(then() + SKEW_MAX), Ok(()));
        assert_eq!(of(then() + SKEW_MAX + Duration::from_secs(1)), Err(Unsigned::Expired));
        assert_eq!(of(then() - SKEW_MAX - Duration::from_secs(1)), Err(Unsigned::Expired));
    }

    #[test]
    fn what_has_not_its_form_is_no_signature() {
        for odd in [
            "",
            "Basic YTpi",
            "AWS4-HMAC-SHA256 ",
            &AUTHORIZATION.replace("b97d", "b97"),
            &AUTHORIZATION.replace("host;", ""),
        ] {
            assert_eq!(Signed::of(&parts("/", odd), b"", then()).unwrap_err(), Unsigned::Missing, "{odd}");
        }
        for odd in ["", "20150830T123600", "20151330T123600Z", "2015083äT12360Z"] {
            assert_eq!(time_of(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_judged_without_panic(authorization in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}") {
            let _ = Signed::of(&parts("/", &authorization), b"", then());
        }
    }
}
