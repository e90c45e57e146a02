//! Looking at JSON without taking it apart: payloads pass as they are, however large.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A JSON object.
    Object {
        /// It has a member `error`.
        has_error: bool,
    },
    /// A JSON array.
    Array,
    /// Anything else, JSON or not.
    Other,
}

/// Looks at bytes.
pub(crate) fn shape_of(bytes: &[u8]) -> Shape {
    // What is passed over inside is not looked at for its encoding.
    let Ok(text) = std::str::from_utf8(bytes) else { return Shape::Other };
    serde_json::from_str(text).unwrap_or(Shape::Other)
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Looking)
    }
}

struct Looking;

impl<'de> Visitor<'de> for Looking {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Shape, A::Error> {
        let mut has_error = false;
        while let Some(name) = members.next_key::<Name>()? {
            has_error |= name.0;
            members.next_value::<IgnoredAny>()?;
        }
        Ok(Shape::Object { has_error })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Shape, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::Array)
    }
}

/// A member's name: whether it is `error`.
struct Name(bool);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Naming;
        impl Visitor<'_> for Naming {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(name == "error"))
            }
        }
        deserializer.deserialize_str(Naming)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_told_apart() {
        let object = |has_error| Shape::Object { has_error };
        for (text, shape) in [
            ("{}", object(false)),
            (" {\"a\":{\"error\":1}} ", object(false)),
            ("{\"a\":1,\"\\u0065rror\":null}", object(true)),
            ("[]", Shape::Array),
            ("[{\"error\":1}]", Shape::Array),
            ("", Shape::Other),
            ("7", Shape::Other),
            ("\"text\"", Shape::Other),
            ("null", Shape::Other),
            ("{", Shape::Other),
            ("{}x", Shape::Other),
            ("{\"a\":tru}", Shape::Other),
        ] {
            assert_eq!(shape_of(text.as_bytes()), shape, "{text}");
        }
        assert_eq!(shape_of(b"{\"a\":\"\xff\"}"), Shape::Other);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = shape_of(deep.as_bytes());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_full_parser(text in "[\\[\\]{},:\"a1 ]{0,24}") {
            let shape = match serde_json::from_str(&text) {
                Ok(serde_json::Value::Object(members)) => Shape::Object { has_error: members.contains_key("error") },
                Ok(serde_json::Value::Array(_)) => Shape::Array,
                _ => Shape::Other,
            };
            prop_assert_eq!(shape_of(text.as_bytes()), shape);
        }
    }
}
