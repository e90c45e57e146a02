//! `CDN-Loop` (RFC 8586): how often a call was passed on, where it goes on over HTTP. Within an edge a call says so itself; at a door
//! for other systems' clients it may come from another edge, or from this one, whose computers have functions run behind such a door.
//! An entry `nigh;hops=N` stands at the end of the list then; what others wrote before it goes on as it is.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::call::{Call, CallLimits};
use crate::status::{PlatformError, Reason};

/// The header's name.
pub static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// This platform's name in the list.
const NAME: &str = "nigh";
const HOPS: &str = "hops";
/// Bytes of what others wrote that go on; what is more is cut at its beginning, whole entries each.
const FOREIGN_BYTES_MAX: usize = 1024;

/// How often a request was passed on before it came here.
///
/// # Errors
/// [`Reason::LoopDetected`] where that is more often than may be.
pub fn hops_of(headers: &HeaderMap, limits: &CallLimits) -> Result<u32, PlatformError> {
    let lists = headers.get_all(&CDN_LOOP).iter().filter_map(|list| list.to_str().ok());
    let hops = lists.flat_map(entries).filter_map(own_hops).max().unwrap_or(0);
    if hops <= limits.hops_max {
        return Ok(hops);
    }
    let message = format!(
        "passed on {hops} times; do edges have functions run by each other? At most {} times are passed on here",
        limits.hops_max
    );
    Err(PlatformError::new(Reason::LoopDetected, message))
}

/// What the header says of a call that is passed on over HTTP.
pub fn passed_on(call: &Call) -> HeaderValue {
    let lists = call.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(CDN_LOOP.as_str()));
    let foreign: Vec<&str> =
        lists.flat_map(|(_, list)| entries(list)).filter(|entry| own_hops(entry).is_none()).collect();
    let mut written = String::new();
    let mut from = foreign.len();
    let mut bytes = 0;
    while from > 0 && bytes + foreign[from - 1].len() + 2 <= FOREIGN_BYTES_MAX {
        from -= 1;
        bytes += foreign[from].len() + 2;
    }
    for entry in &foreign[from..] {
        written.push_str(entry);
        written.push_str(", ");
    }
    let own = format!("{NAME};{HOPS}={}", call.hops.saturating_add(1));
    // What others wrote came in a header, or as a text that need not be one.
    HeaderValue::from_str(&(written + &own))
        .or_else(|_| HeaderValue::from_str(&own))
        .unwrap_or(HeaderValue::from_static(NAME))
}

/// The entries of a list. No quoted text of those that others write is looked into.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// What an entry of this platform's says; one that says nothing stands for itself.
fn own_hops(entry: &str) -> Option<u32> {
    let mut parts = entry.split(';').map(str::trim);
    if parts.next() != Some(NAME) {
        return None;
    }
    let said = parts.find_map(|part| part.strip_prefix(HOPS)?.strip_prefix('=')?.trim_matches('"').parse().ok());
    Some(said.unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::call::Headers;

    fn hops(lists: &[&str]) -> Result<u32, Reason> {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(&CDN_LOOP, list.parse().unwrap());
        }
        hops_of(&headers, &CallLimits::default()).map_err(|error| error.reason)
    }

    fn call(hops: u32, list: Option<&str>) -> Call {
        let headers = list.map(|list| ("CDN-Loop".to_owned(), list.to_owned())).into_iter().collect();
        let call = Call::new("echo".parse().unwrap(), "", Duration::from_secs(1));
        Call { hops, headers: Headers::new(headers).unwrap(), ..call }
    }

    #[test]
    fn what_was_passed_on_is_counted_and_refused_where_it_is_too_often() {
        assert_eq!(hops(&[]), Ok(0));
        assert_eq!(hops(&["cloudflare; loops=1", "foo.example"]), Ok(0));
        assert_eq!(hops(&["nigh"]), Ok(1));
        assert_eq!(hops(&["foo.example, nigh;hops=3", "nigh; hops=\"5\""]), Ok(5));
        assert_eq!(hops(&["nigh;hops=8"]), Ok(8));
        assert_eq!(hops(&["nigh;hops=9"]), Err(Reason::LoopDetected));
        assert_eq!(hops(&["nigh;hops=-1", "nighthawk;hops=99"]), Ok(1));
    }

    #[test]
    fn what_others_wrote_goes_on() {
        assert_eq!(passed_on(&call(0, None)), "nigh;hops=1");
        assert_eq!(passed_on(&call(4, Some("foo.example;a=b, nigh;hops=2,,bar"))), "foo.example;a=b, bar, nigh;hops=5");
        assert_eq!(passed_on(&call(u32::MAX, None)), "nigh;hops=4294967295");
        let many = vec!["x".repeat(99); 40].join(",");
        let told = passed_on(&call(0, Some(&many)));
        assert!(told.len() < FOREIGN_BYTES_MAX + 40 && told.to_str().unwrap().ends_with(", nigh;hops=1"), "{told:?}");
    }

    proptest! {
        #[test]
        fn each_pass_is_counted_whatever_others_write(list in "[a-z;=\", ]{0,40}", hops in 0u32..8) {
            let told = passed_on(&call(hops, Some(&list)));
            let headers = HeaderMap::from_iter([(CDN_LOOP.clone(), told)]);
            prop_assert_eq!(hops_of(&headers, &CallLimits::default()).unwrap(), hops + 1);
        }
    }
}
