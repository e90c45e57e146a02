//! Parameters that are stored, put under those of an invocation, which stay as they were written.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::failure::Failure;
use super::kept::{Pair, Resolved};
use crate::shape::{Shape, shape_of};

/// Bytes of an action's parameters, at most.
pub(super) const PARAMETERS_BYTES_MAX: usize = 1 << 20;

/// Parameters are one JSON object; nothing at all means one without members.
pub(super) fn checked(bytes: &Bytes) -> Result<Bytes, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::from_static(b"{}"));
    }
    match shape_of(bytes) {
        Shape::Object { .. } => Ok(bytes.clone()),
        Shape::Array | Shape::Other => {
            Err(Failure::bad("The request content was malformed: parameters are one JSON object"))
        }
    }
}

/// The parameters of an invocation, with those stored that it does not give itself.
///
/// # Errors
/// 400 where it gives another value to what is final, 413 where all together are too much.
pub(super) fn merged(resolved: &Resolved, given: Bytes) -> Result<Bytes, Failure> {
    let Resolved { parameters, is_final, .. } = resolved;
    if parameters.is_empty() {
        return Ok(given);
    }
    // What is no object (a sequence's actions may answer with a list) has no names to be given others by.
    let Ok(names) = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&given) else { return Ok(given) };
    let is_settled = |(name, value): (&String, &Value)| !value.is_null() && names.contains_key(name);
    if *is_final && parameters.iter().any(is_settled) {
        return Err(Failure::bad("Request defines parameters that are not allowed (e.g., reserved properties)."));
    }
    let missing: BTreeMap<_, _> = parameters.iter().filter(|(name, _)| !names.contains_key(*name)).collect();
    if missing.is_empty() {
        return Ok(given);
    }
    let mut whole = serde_json::to_vec(&missing).unwrap_or_default();
    if !names.is_empty() {
        // Both are objects with members: `{…` and `…}`.
        let opening = given.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
        whole.pop();
        whole.push(b',');
        whole.extend_from_slice(&given[opening..]);
    }
    if whole.len() > PARAMETERS_BYTES_MAX {
        let message = format!(
            "the parameters, those stored included, have {} bytes; at most {PARAMETERS_BYTES_MAX} are taken",
            whole.len()
        );
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(whole.into())
}

/// Parameters or annotations as they are put: each once, with a name.
pub(super) fn checked_pairs(what: &str, pairs: Vec<Pair>) -> Result<Vec<Pair>, Failure> {
    let mut by_key = BTreeMap::new();
    for pair in pairs {
        if pair.key.is_empty() {
            return Err(Failure::bad(format!("The request content was malformed: {what}: a key is empty")));
        }
        by_key.insert(pair.key, pair.value);
    }
    Ok(by_key.into_iter().map(|(key, value)| Pair { key, value }).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::kept::Kept;
    use super::super::kept::tests::{contents, pairs};
    use super::*;
    use crate::namespace::{Entity, Namespace};

    fn of(stored: Value, is_final: bool) -> Resolved {
        let annotations = pairs(json!({ "final": is_final }));
        let kept = Kept { parameters: pairs(stored), annotations, ..Kept::default() };
        let guest = Namespace::default();
        contents(&[("echo", kept)], &[]).resolve(&guest, &Entity::new(&guest, None, "echo")).unwrap()
    }

    fn merge(stored: Value, given: &'static str) -> Result<String, u16> {
        let merged = merged(&of(stored, false), given.into()).map_err(|failure| failure.status.as_u16())?;
        Ok(String::from_utf8(merged.to_vec()).unwrap())
    }

    #[test]
    fn parameters_are_an_object() {
        let of = |text: &'static str| checked(&text.into()).map_err(|failure| failure.status.as_u16());
        assert_eq!(of(""), Ok("{}".into()));
        assert_eq!(of("\n"), Ok("{}".into()));
        assert_eq!(of("{\"a\":1}\n"), Ok("{\"a\":1}\n".into()));
        for wrong in ["[]", "7", "{", "null"] {
            assert_eq!(of(wrong), Err(400), "{wrong}");
        }
    }

    #[test]
    fn what_is_stored_stands_under_what_is_given() {
        assert_eq!(merge(json!({}), "{\"a\": 1 }\n").unwrap(), "{\"a\": 1 }\n");
        assert_eq!(merge(json!({ "b": [2] }), "{}").unwrap(), "{\"b\":[2]}");
        assert_eq!(merge(json!({ "b": 2 }), " { \"a\" : 1e400 }").unwrap(), "{\"b\":2, \"a\" : 1e400 }");
        assert_eq!(merge(json!({ "a": 2 }), "{\"\\u0061\":1}").unwrap(), "{\"\\u0061\":1}");
        assert_eq!(merge(json!({ "a": 2 }), "[1]").unwrap(), "[1]");
        assert_eq!(merge(json!({ "a": "x".repeat(PARAMETERS_BYTES_MAX) }), "{}"), Err(413));
    }

    #[test]
    fn what_is_final_is_given_by_nobody() {
        let stored = json!({ "a": 1, "open": null });
        let give = |given: &'static str| merged(&of(stored.clone(), true), given.into());
        assert_eq!(give("{\"a\":2}").unwrap_err().status.as_u16(), 400);
        assert_eq!(give("{\"b\":2,\"open\":3}").unwrap(), "{\"a\":1,\"b\":2,\"open\":3}");
    }

    proptest! {
        #[test]
        fn merging_is_what_merging_values_is(
            stored in prop::collection::btree_map("[ab]{0,2}", 0u8..9, 0..4),
            given in prop::collection::btree_map("[ab]{0,2}", 10u8..19, 0..4),
            spaced: bool,
        ) {
            let text = if spaced { serde_json::to_string_pretty(&given) } else { serde_json::to_string(&given) }.unwrap();
            let merged = merged(&of(json!(stored), false), text.into()).unwrap();
            let mut expected = stored;
            expected.extend(given);
            prop_assert_eq!(serde_json::from_slice::<BTreeMap<String, u8>>(&merged).unwrap(), expected);
        }
    }
}
