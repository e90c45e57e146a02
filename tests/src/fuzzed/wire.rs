//! Messages between roles: whatever decodes becomes a checked value or a typed refusal, and a checked value survives the
//! wire as it is.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::Node;
use nigh_proto::{
    Broker, Call, CallId, CallLimits, Computer, Deployment, Digest, Endpoint, FunctionName, Limits, NodeName,
    PlatformError, Reply, v1,
};
use prost::Message;

/// The first byte chooses the message, the rest is its bytes.
pub(super) fn check(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 9 {
        0 => survives(bytes, |wire: v1::Limits| Limits::from_wire(&wire), Limits::to_wire),
        1 => survives(bytes, Deployment::from_wire, Deployment::to_wire),
        2 => survives(bytes, Computer::from_wire, Computer::to_wire),
        3 => survives(bytes, Broker::from_wire, Broker::to_wire),
        4 => survives(bytes, Node::from_wire, Node::to_wire),
        5 => call(bytes),
        6 => reply(bytes),
        7 => event(bytes),
        _ => text(bytes),
    }
}

/// A value that passed the check once passes it again, and is the same.
fn survives<Wire: Message + Default, Value: PartialEq + Debug>(
    bytes: &[u8],
    from_wire: impl Fn(Wire) -> Result<Value, PlatformError>,
    to_wire: impl Fn(&Value) -> Wire,
) {
    let Ok(wire) = Wire::decode(bytes) else { return };
    match from_wire(wire) {
        Ok(value) => assert_eq!(from_wire(to_wire(&value)).as_ref(), Ok(&value)),
        Err(refusal) => assert!(!refusal.message.is_empty(), "a refusal says why"),
    }
}

fn call(bytes: &[u8]) {
    let Ok(wire) = v1::InvokeRequest::decode(bytes) else { return };
    let now = Instant::now();
    for timeout in [None, Some(Duration::ZERO), Some(Duration::from_secs(1)), Some(Duration::MAX)] {
        let Ok(call) = Call::from_wire(wire.clone(), timeout, &CallLimits::default(), now) else { continue };
        assert!(call.deadline >= now && call.deadline <= now + CallLimits::default().timeout_max);
        let again = Call::from_wire(call.to_wire(), timeout, &CallLimits::default(), now).expect("it passed before");
        assert_eq!((again.function, again.headers, again.id), (call.function, call.headers, call.id));
        assert_eq!((again.payload, again.dry_run, again.retry_safe), (call.payload, call.dry_run, call.retry_safe));
    }
}

fn reply(bytes: &[u8]) {
    let Ok(wire) = v1::InvokeResponse::decode(bytes) else { return };
    let Ok(reply) = Reply::from_wire(wire) else { return };
    let again = Reply::from_wire(reply.clone().into_wire()).expect("it passed before");
    assert_eq!((again.outcome, again.call, again.timing), (reply.outcome, reply.call, reply.timing));
}

fn event(bytes: &[u8]) {
    let Ok(wire) = v1::WatchEvent::decode(bytes) else { return };
    let Ok(Some(event)) = WatchEvent::from_wire(wire) else { return };
    assert_eq!(WatchEvent::from_wire(event.to_wire()), Ok(Some(event)));
}

fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    prints_as_it_parses::<FunctionName>(&text);
    prints_as_it_parses::<NodeName>(&text);
    prints_as_it_parses::<CallId>(&text);
    prints_as_it_parses::<Endpoint>(&text);
    prints_as_it_parses::<Digest>(&text);
}

fn prints_as_it_parses<T>(text: &str)
where
    T: std::str::FromStr<Err: Debug> + ToString + PartialEq + Debug,
{
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().expect("it parsed before"), value);
    }
}
