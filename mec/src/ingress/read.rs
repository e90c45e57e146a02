//! JSON of strangers to checked values. What is wrong is told with where it stands.

use std::fmt;

use fluent_uri::Uri;
use serde_json::{Map, Number, Value};

use crate::error::Refusal;
use crate::location::{Area, CivicAddressElement, Constraint};

/// An object and where it stands, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    members: &'a Map<String, Value>,
    at: Place<'a>,
}

/// A path into a document.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Root,
    Member(&'a Self, &'a str),
    Element(&'a Self, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Self::Root, name) => f.write_str(name),
            Self::Member(of, name) => write!(f, "{of}.{name}"),
            Self::Element(of, at) => write!(f, "{of}[{at}]"),
        }
    }
}

fn wrong<T>(at: Place<'_>, what: &str) -> Result<T, Refusal> {
    Err(Refusal::Malformed(format!("{at} {what}")))
}

/// The object that a body is.
pub(super) fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::Malformed(format!("it is no JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(Refusal::Malformed("it must be an object".to_owned())) }
}

/// A document's outermost object.
pub(super) fn root(value: &Value) -> Result<Object<'_>, Refusal> {
    let members = value.as_object().ok_or_else(|| Refusal::Malformed("it must be an object".to_owned()))?;
    Ok(Object { members, at: Place::Root })
}

impl<'a> Object<'a> {
    /// A member that must be an object, read by `read`.
    pub(super) fn object<T>(
        &self,
        name: &str,
        read: impl FnOnce(Object<'_>) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        let at = Place::Member(&self.at, name);
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Object(members)) => read(Object { members, at }).map(Some),
            Some(_) => wrong(at, "must be an object"),
        }
    }

    /// A member that must be a list of objects, each read by `read`.
    pub(super) fn objects<T>(
        &self,
        name: &str,
        read: impl Fn(Object<'_>) -> Result<T, Refusal>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        let at = Place::Member(&self.at, name);
        let Some(value) = self.members.get(name) else { return Ok(None) };
        let Value::Array(elements) = value else { return wrong(at, "must be a list") };
        let read = |(index, element): (usize, &Value)| {
            let at = Place::Element(&at, index);
            match element {
                Value::Object(members) => read(Object { members, at }),
                _ => wrong(at, "must be an object"),
            }
        };
        elements.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// A text of so many characters at most.
    pub(super) fn text(&self, name: &str, chars_max: usize) -> Result<Option<String>, Refusal> {
        let at = Place::Member(&self.at, name);
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= chars_max => Ok(Some(text.clone())),
            Some(Value::String(_)) => wrong(at, &format!("may have {chars_max} characters")),
            Some(_) => wrong(at, "must be text"),
        }
    }

    /// A text that must be there.
    pub(super) fn needed_text(&self, name: &str, chars_max: usize) -> Result<String, Refusal> {
        self.text(name, chars_max).and_then(|text| self.needed(name, text))
    }

    /// What must be there.
    pub(super) fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, Refusal> {
        match value {
            Some(value) => Ok(value),
            None => wrong(Place::Member(&self.at, name), "is missing"),
        }
    }

    /// An absolute URI.
    pub(super) fn uri(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.text(name, usize::MAX)? {
            Some(text) if Uri::parse(text.as_str()).is_err() => {
                wrong(Place::Member(&self.at, name), "must be an absolute URI")
            }
            other => Ok(other),
        }
    }

    /// A truth value.
    pub(super) fn truth(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(_) => wrong(Place::Member(&self.at, name), "must be true or false"),
        }
    }

    /// A whole number.
    fn integer(&self, name: &str) -> Result<Option<Number>, Refusal> {
        let is_whole = |number: &Number| {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        };
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) if is_whole(number) => Ok(Some(number.clone())),
            Some(_) => wrong(Place::Member(&self.at, name), "must be a whole number"),
        }
    }

    /// `LocationConstraints`.
    pub(super) fn location(&self, name: &str) -> Result<Option<Constraint>, Refusal> {
        self.object(name, |location| {
            Ok(Constraint {
                country_code: location.text("countryCode", 2)?,
                civic_address_element: location.objects("civicAddressElement", |element| {
                    Ok(CivicAddressElement {
                        ca_type: element.integer("caType")?,
                        ca_value: element.text("caValue", usize::MAX)?,
                    })
                })?,
                area: location.object("area", |area| area.polygon())?,
            })
        })
    }

    fn polygon(&self) -> Result<Area, Refusal> {
        let kind = self.members.get("type").and_then(Value::as_str).map(str::to_owned);
        let at = Place::Member(&self.at, "coordinates");
        let Some(rings) = self.members.get("coordinates") else { return Ok(Area { kind, coordinates: None }) };
        let told = "must be a list of rings, each a list of points, each a list of numbers";
        let rings: Result<Vec<Vec<Vec<f64>>>, Refusal> = list(rings, |ring| {
            list(ring, |point| list(point, |number| number.as_f64().ok_or_else(|| Refusal::Malformed(String::new()))))
        });
        match rings {
            Ok(rings) if rings.is_empty() => wrong(at, "must have a ring"),
            Ok(rings) => Ok(Area { kind, coordinates: Some(rings) }),
            Err(_) => wrong(at, told),
        }
    }
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
    let elements = value.as_array().ok_or_else(|| Refusal::Malformed(String::new()))?;
    elements.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told<T: fmt::Debug>(read: Result<T, Refusal>) -> String {
        read.unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_told_with_where_it_stands() {
        let document = json!({"a": {"b": [{}, {"c": 1}]}, "t": "xyz", "u": "", "n": 1.5});
        let object = root(&document).unwrap();
        let inner = object.object("a", |a| a.objects("b", |b| b.needed_text("c", 9)));
        assert!(told(inner).contains("a.b[0].c is missing"));
        assert!(told(object.text("t", 2)).contains("t may have 2 characters"));
        assert!(told(object.uri("u")).contains("absolute URI"));
        assert!(told(object.integer("n")).contains("whole number"));
        assert!(told(object.truth("t")).contains("true or false"));
        assert!(told(parse(b"[]")).contains("must be an object"));
        assert!(told(parse(b"{")).contains("no JSON"));
        assert_eq!(object.text("absent", 1), Ok(None));
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let document = json!({"t": "ääää"});
        assert!(root(&document).unwrap().text("t", 4).is_ok() && root(&document).unwrap().text("t", 3).is_err());
    }

    #[test]
    fn locations_are_read_as_the_file_of_the_standard_says() {
        let read = |location: Value| root(&json!({ "l": location })).unwrap().location("l");
        for fine in [
            json!({}),
            json!({"countryCode": "DE", "other": 1}),
            json!({"civicAddressElement": [{"caType": 1.0, "caValue": ""}, {}]}),
            json!({"area": {}}),
            json!({"area": {"type": 7, "coordinates": [[[1, 2.5], []]]}}),
        ] {
            assert!(read(fine.clone()).is_ok(), "{fine}");
        }
        for odd in [
            json!(null),
            json!({"countryCode": "DEU"}),
            json!({"civicAddressElement": [{"caType": 1.5, "caValue": ""}]}),
            json!({"civicAddressElement": [7]}),
            json!({"area": []}),
            json!({"area": {"coordinates": []}}),
            json!({"area": {"coordinates": [[["1"]]]}}),
        ] {
            assert!(read(odd.clone()).is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes).map(|value| root(&value).and_then(|object| object.location("l")));
        }
    }
}
