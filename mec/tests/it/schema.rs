//! The official descriptions of GS MEC 016 2.2.1 and GS MEC 011 2.1.1, and whether a document is as one of its schemas says.

use serde_json::Value;

/// The official files.
const DEVICES: &str = include_str!("../../../tests/data/etsi-mec/gs016-UEAppInterfaceApi-2.2.1.yaml");
pub(crate) const SUPPORT: &str = include_str!("../../../tests/data/etsi-mec/gs011-MecAppSupportApi-2.1.1.yaml");
pub(crate) const SERVICES: &str = include_str!("../../../tests/data/etsi-mec/gs011-MecServiceMgmtApi-2.1.1.yaml");

/// The schemas of a file.
pub(crate) struct Schemas(Value);

impl Schemas {
    pub(crate) fn read() -> Self {
        Self::of(DEVICES)
    }

    pub(crate) fn of(file: &str) -> Self {
        Self(serde_saphyr::from_str(file).unwrap())
    }

    /// Panics where a document is not as the schema of this name says.
    pub(crate) fn check(&self, name: &str, document: &Value) {
        if let Err(wrong) = self.judge(&self.0["components"]["schemas"][name], document, name) {
            panic!("{wrong}: {document:#}");
        }
    }

    /// The keywords that the files use, one by one.
    fn judge(&self, schema: &Value, document: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.0.pointer(reference.trim_start_matches('#')).unwrap();
            return self.judge(target, document, at);
        }
        if let Some(ways) = schema["oneOf"].as_array() {
            let fitting = ways.iter().filter(|way| self.judge(way, document, at).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { Err(format!("{at} is as {fitting} of {} say", ways.len())) };
        }
        let is_listed = schema["enum"].as_array().is_none_or(|values| values.contains(document));
        if !is_listed || schema.get("const").is_some_and(|value| value != document) {
            return Err(format!("{at} is none of those that it may be"));
        }
        assert!(schema.is_object(), "{at}: no schema");
        let is_of_type = match schema["type"].as_str() {
            Some("object") => document.is_object(),
            Some("array") => document.is_array(),
            Some("string") => document.is_string(),
            Some("boolean") => document.is_boolean(),
            Some("integer") => document.is_i64() || document.is_u64(),
            Some("number") => document.is_number(),
            other => panic!("{at}: type {other:?}"),
        };
        if !is_of_type {
            return Err(format!("{at} is no {}", schema["type"]));
        }
        for needed in schema["required"].as_array().into_iter().flatten().filter(|_| document.is_object()) {
            if document.get(needed.as_str().unwrap()).is_none() {
                return Err(format!("{at} has no {needed}"));
            }
        }
        for (name, member) in document.as_object().into_iter().flatten() {
            if let Some(schema) = schema["properties"].get(name) {
                self.judge(schema, member, &format!("{at}.{name}"))?;
            }
        }
        for element in document.as_array().into_iter().flatten() {
            self.judge(&schema["items"], element, &format!("{at}[]"))?;
        }
        let too_few = |count: usize| schema["minItems"].as_u64().is_some_and(|least| (count as u64) < least);
        if document.as_array().is_some_and(|elements| too_few(elements.len())) {
            return Err(format!("{at} has too few elements"));
        }
        let Some(text) = document.as_str() else { return Ok(()) };
        if schema["maxLength"].as_u64().is_some_and(|most| text.chars().count() as u64 > most) {
            return Err(format!("{at} is too long"));
        }
        if schema["format"] == "uri" && fluent_uri::Uri::parse(text).is_err() {
            return Err(format!("{at} is no URI"));
        }
        Ok(())
    }
}

#[test]
fn what_is_not_as_the_file_says_is_found() {
    let schemas = Schemas::read();
    let judge = |document: Value| {
        schemas.judge(&schemas.0["components"]["schemas"]["AddressChangeNotification"], &document, "it")
    };
    let good = serde_json::json!({
        "notificationType": "AddressChangeNotification", "contextId": "1", "appInstanceId": "2", "referenceURI": "http://a/",
    });
    assert_eq!(judge(good.clone()), Ok(()));
    let mut bad = good.clone();
    bad["referenceURI"] = "127.0.0.1:6473".into();
    assert!(judge(bad).unwrap_err().contains("no URI"));
    let mut bad = good;
    bad.as_object_mut().unwrap().remove("contextId");
    assert!(judge(bad).unwrap_err().contains("contextId"));
}
