//! CloudEvents 1.0 over HTTP, at functions that are no http functions: an event in either mode of the standard is a call whose
//! payload is the event's data and whose headers `ce-…` are its attributes; and what a function answers to an event is told
//! as an event, in the mode of the request. An answer that has `ce-…` headers of its own says so itself what it is.

use std::borrow::Cow;
use std::time::SystemTime;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::Answer;
use super::body::AnswerBody;
use super::problem::Problem;
use crate::call::{CallId, Headers};
use crate::name::FunctionName;
use crate::status::PlatformError;

const VERSION: &str = "1.0";
/// Headers of attributes begin so.
const PREFIX: &str = "ce-";
const SPEC_VERSION: &str = "ce-specversion";
/// Attributes that no event is without.
const MANDATORY: [&str; 3] = ["ce-id", "ce-source", "ce-type"];
/// Bytes of an attribute's name, at most.
const NAME_BYTES_MAX: usize = 64;
/// What an event is that a function's answer becomes where the function does not say.
const ANSWERED: &str = "nigh.function.answered";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";
/// What an attribute's value may not hold as it is.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// How an event travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its attributes are headers.
    Binary,
    /// It is one JSON object.
    Structured,
}

/// In which mode a request is an event, if it is one.
pub(super) fn mode_of(headers: &HeaderMap) -> Option<Mode> {
    let is_structured = media_type_of(headers).eq_ignore_ascii_case(STRUCTURED);
    let is_binary = || headers.contains_key(SPEC_VERSION);
    if is_structured { Some(Mode::Structured) } else { is_binary().then_some(Mode::Binary) }
}

/// The answer to several events at once, if a request is that.
pub(super) fn refused_batch(headers: &HeaderMap) -> Option<Answer> {
    let is_batch = media_type_of(headers).eq_ignore_ascii_case(BATCH);
    let detail = "events are taken one by one, not in batches; post each";
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    is_batch
        .then(|| Problem::of_request(status, "unsupported-media-type", "Unsupported media type", detail).respond(None))
}

fn media_type_of(headers: &HeaderMap) -> &str {
    media_type(headers.get(header::CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or_default())
}

/// A media type without its parameters.
fn media_type(form: &str) -> &str {
    form.split(';').next().unwrap_or_default().trim()
}

/// The payload and headers of the call that an event is.
///
/// # Errors
/// [`Reason::Malformed`](crate::Reason::Malformed) where it is none.
pub(super) fn opened(mode: Mode, headers: Headers, body: Bytes) -> Result<(Headers, Bytes), PlatformError> {
    let (headers, payload) = match mode {
        Mode::Binary => (Headers::new(headers.iter().map(decoded).collect())?, body),
        Mode::Structured => taken_apart(&headers, &body)?,
    };
    match headers.get(SPEC_VERSION) {
        Some(VERSION) => {}
        Some(other) => {
            let other: String = other.chars().take(16).collect();
            return Err(PlatformError::malformed(format!("CloudEvents {other:?} are not known here, {VERSION} is")));
        }
        None => return Err(missing("specversion")),
    }
    for name in MANDATORY {
        if headers.get(name).is_none_or(str::is_empty) {
            return Err(missing(&name[PREFIX.len()..]));
        }
    }
    Ok((headers, payload))
}

fn missing(attribute: &str) -> PlatformError {
    PlatformError::malformed(format!("the event has no attribute {attribute:?}, which none is without"))
}

/// An attribute's value as it was before it became a header.
fn decoded((name, value): (&str, &str)) -> (String, String) {
    let is_attribute = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let value = match percent_decode_str(value).decode_utf8() {
        Ok(decoded) if is_attribute => decoded,
        _ => Cow::Borrowed(value),
    };
    (name.to_owned(), value.into_owned())
}

/// Takes an event in structured mode apart.
fn taken_apart(headers: &Headers, body: &[u8]) -> Result<(Headers, Bytes), PlatformError> {
    let malformed = |why: String| PlatformError::malformed(format!("the event is no CloudEvent in JSON: {why}"));
    let mut members: Map<String, Value> = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let (data, encoded) = (members.remove("data"), members.remove("data_base64"));
    let form = match members.remove("datacontenttype") {
        Some(Value::String(form)) => form,
        None | Some(Value::Null) => JSON.to_owned(),
        Some(_) => return Err(malformed("datacontenttype is no text".to_owned())),
    };
    let payload = match (data, encoded) {
        (Some(_), Some(_)) => return Err(malformed("it has both data and data_base64".to_owned())),
        (None, Some(Value::String(encoded))) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
            decoded.map_err(|error| malformed(format!("data_base64: {error}")))?.into()
        }
        (None, Some(_)) => return Err(malformed("data_base64 is no text".to_owned())),
        (None, None) => Bytes::new(),
        (Some(Value::String(text)), None) if !is_json(&form) => text.into(),
        (Some(data), None) => data.to_string().into(),
    };
    let mut opened: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    opened.push(("content-type".to_owned(), form));
    for (name, value) in members {
        let value = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => {
                return Err(malformed(format!("attribute {name:?} is no single value")));
            }
        };
        if !is_attribute_name(&name) {
            return Err(malformed("an attribute's name is not of a-z 0-9".to_owned()));
        }
        opened.push((format!("{PREFIX}{name}"), value));
    }
    Ok((Headers::new(opened)?, payload))
}

fn is_attribute_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
}

fn is_json(form: &str) -> bool {
    let form = media_type(form).to_ascii_lowercase();
    form == JSON || form == "text/json" || form.ends_with("+json")
}

/// A function's answer to an event, told as an event. An answer without anything is told so.
pub(super) fn answered(mode: Mode, function: &FunctionName, payload: Bytes, headers: &Headers) -> Answer {
    let form = headers.get("content-type").unwrap_or_default();
    let is_event = headers.get(SPEC_VERSION).is_some() || media_type(form).eq_ignore_ascii_case(STRUCTURED);
    if payload.is_empty() && !is_event {
        let mut nothing = Response::new(AnswerBody::whole(payload));
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return nothing;
    }
    if media_type(form).eq_ignore_ascii_case(STRUCTURED) {
        // The function has put it together by itself.
        return super::answer::answer(payload, headers);
    }
    let attributes = attributes(function, headers, is_event);
    match mode {
        Mode::Binary => {
            let mut told = super::answer::answer(payload, headers);
            for (name, value) in &attributes {
                let value = utf8_percent_encode(value, ENCODED).to_string();
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(format!("{PREFIX}{name}")), HeaderValue::try_from(value))
                {
                    told.headers_mut().insert(name, value);
                }
            }
            told
        }
        Mode::Structured => structured(attributes, form, &payload),
    }
}

/// What an answer is as an event: what the function says, and what is missing.
fn attributes(function: &FunctionName, headers: &Headers, is_event: bool) -> Vec<(String, String)> {
    let own = headers.iter().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix(PREFIX).filter(|name| is_attribute_name(name))?;
        Some((name.to_owned(), value.to_owned()))
    });
    let mut attributes: Vec<_> = own.collect();
    let mut default = |name: &str, value: &dyn Fn() -> String| {
        if !attributes.iter().any(|(have, _)| have == name) {
            attributes.push((name.to_owned(), value()));
        }
    };
    default("specversion", &|| VERSION.to_owned());
    default("id", &|| CallId::random().to_string());
    default("source", &|| format!("/functions/{function}"));
    default("type", &|| ANSWERED.to_owned());
    if !is_event {
        default("time", &|| humantime::format_rfc3339_millis(SystemTime::now()).to_string());
    }
    attributes
}

/// An event as one JSON object.
fn structured(attributes: Vec<(String, String)>, form: &str, payload: &[u8]) -> Answer {
    let mut event: Map<String, Value> =
        attributes.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    if !form.is_empty() {
        event.insert("datacontenttype".to_owned(), form.into());
    }
    let as_json = || serde_json::from_slice::<Value>(payload).ok().filter(|_| form.is_empty() || is_json(form));
    match (as_json(), std::str::from_utf8(payload)) {
        (Some(data), _) => event.insert("data".to_owned(), data),
        (None, Ok(text)) if !form.is_empty() && !is_json(form) => event.insert("data".to_owned(), text.into()),
        _ => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(payload);
            event.insert("data_base64".to_owned(), encoded.into())
        }
    };
    let mut told = Response::new(AnswerBody::whole(json!(event).to_string()));
    let form = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
    told.headers_mut().insert(header::CONTENT_TYPE, form);
    told
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()).unwrap()
    }

    const EVENT: [(&str, &str); 4] = [(SPEC_VERSION, "1.0"), ("ce-id", "7"), ("ce-source", "/s"), ("ce-type", "t")];

    #[test]
    fn requests_are_told_apart_by_their_headers() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let headers: HeaderMap = pairs.collect();
            (mode_of(&headers), refused_batch(&headers).map(|answer| answer.status().as_u16()))
        };
        assert_eq!(of(&[("content-type", "text/plain")]), (None, None));
        assert_eq!(of(&[("content-type", "text/plain"), (SPEC_VERSION, "1.0")]), (Some(Mode::Binary), None));
        let structured = of(&[("content-type", "Application/CloudEvents+json; charset=utf-8")]);
        assert_eq!(structured, (Some(Mode::Structured), None));
        assert_eq!(of(&[("content-type", BATCH)]), (None, Some(415)));
    }

    #[test]
    fn an_event_is_the_same_call_in_both_modes() {
        let of_binary =
            headers(&[&EVENT[..], &[("content-type", "application/json"), ("ce-subject", "Zo%C3%AB%20X")]].concat());
        let (binary, payload) = opened(Mode::Binary, of_binary, "{\"a\":1}".into()).unwrap();
        assert_eq!((binary.get("ce-subject"), &payload[..]), (Some("Zoë X"), &b"{\"a\":1}"[..]));
        let event = json!({
            "specversion": "1.0", "id": "7", "source": "/s", "type": "t", "subject": "Zoë X", "data": { "a": 1 },
            "retries": 3, "urgent": true, "nothing": null,
        });
        let sent = headers(&[("content-type", STRUCTURED), ("x-mine", "1")]);
        let (structured, payload) = opened(Mode::Structured, sent, event.to_string().into()).unwrap();
        assert_eq!(payload, "{\"a\":1}");
        for name in ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "content-type"] {
            assert_eq!(structured.get(name), binary.get(name), "{name}");
        }
        assert_eq!((structured.get("ce-retries"), structured.get("ce-urgent")), (Some("3"), Some("true")));
        assert_eq!((structured.get("ce-nothing"), structured.get("x-mine")), (None, Some("1")));
    }

    #[test]
    fn data_of_every_form_are_a_payload() {
        let of = |members: &str| {
            let event = format!("{{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/s\",\"type\":\"t\"{members}}}");
            opened(Mode::Structured, Headers::default(), event.into()).map(|(_, payload)| payload)
        };
        assert_eq!(of("").unwrap(), "");
        assert_eq!(of(",\"data\":\"text\"").unwrap(), "\"text\"");
        assert_eq!(of(",\"data\":\"text\",\"datacontenttype\":\"text/plain; charset=utf-8\"").unwrap(), "text");
        assert_eq!(of(",\"data_base64\":\"/wA=\",\"datacontenttype\":\"image/png\"").unwrap(), &b"\xff\0"[..]);
        for wrong in [
            ",\"data\":1,\"data_base64\":\"\"",
            ",\"data_base64\":\"?\"",
            ",\"data_base64\":1",
            ",\"other\":{}",
            ",\"Other\":1",
            ",\"datacontenttype\":1",
            ",",
        ] {
            assert_eq!(of(wrong).unwrap_err().reason, crate::Reason::Malformed, "{wrong}");
        }
    }

    #[test]
    fn what_no_event_is_without_is_asked_for() {
        for at in 0..EVENT.len() {
            let mut pairs = EVENT.to_vec();
            let (name, _) = pairs.remove(at);
            let error = opened(Mode::Binary, headers(&pairs), Bytes::new()).unwrap_err();
            assert!(error.message.contains(&format!("{:?}", &name[3..])), "{error}");
        }
        let mut pairs = EVENT.to_vec();
        pairs[0].1 = "0.3";
        assert!(opened(Mode::Binary, headers(&pairs), Bytes::new()).unwrap_err().message.contains("0.3"));
    }

    async fn told(mode: Mode, payload: &'static [u8], pairs: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
        let told = answered(mode, &"echo".parse().unwrap(), payload.into(), &headers(pairs));
        let (parts, body) = told.into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn answers_are_events_too() {
        let (status, told_as, body) = told(Mode::Binary, b"hello", &[("content-type", "text/plain")]).await;
        assert_eq!((status, &body[..]), (200, &b"hello"[..]));
        assert_eq!(told_as["ce-source"], "/functions/echo");
        assert!(told_as.contains_key("ce-id") && told_as.contains_key("ce-time") && told_as["ce-type"] == ANSWERED);
        assert_eq!(told(Mode::Binary, b"", &[]).await.0, 204);
        let own = [&EVENT[..], &[("ce-subject", "Zoë")]].concat();
        let (_, told_as, _) = told(Mode::Binary, b"x", &own).await;
        assert_eq!(
            (&told_as["ce-id"], &told_as["ce-subject"], told_as.contains_key("ce-time")),
            (&HeaderValue::from_static("7"), &HeaderValue::from_static("Zo%C3%AB"), false)
        );
        for (payload, form, member, expected) in [
            (&b"{\"a\":1}"[..], "application/json", "data", json!({ "a": 1 })),
            (b"[1]", "", "data", json!([1])),
            (b"hello", "text/plain", "data", json!("hello")),
            (b"hello", "", "data_base64", json!("aGVsbG8=")),
            (b"\xff\0", "image/png", "data_base64", json!("/wA=")),
        ] {
            let pairs = [("content-type", form)];
            let (status, told_as, body) =
                told(Mode::Structured, payload, if form.is_empty() { &[] } else { &pairs }).await;
            let event: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, &event[member], &event["specversion"]), (200, &expected, &json!("1.0")));
            assert!(told_as[header::CONTENT_TYPE].to_str().unwrap().starts_with(STRUCTURED));
        }
    }

    proptest! {
        #[test]
        fn anything_is_judged_without_panic(text in ".{0,80}", body: Vec<u8>) {
            let _ = opened(Mode::Structured, Headers::default(), text.clone().into());
            let _ = opened(Mode::Structured, Headers::default(), body.into());
            let event = json!({ "specversion": "1.0", "id": text.clone(), "source": "s", "type": "t", "x": text });
            let _ = opened(Mode::Structured, Headers::default(), event.to_string().into());
        }
    }
}
