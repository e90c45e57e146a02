//! A call: what a caller asks for, checked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Request;

use crate::flow::{FLOW_STEPS_MAX, Flow};
use crate::name::hexadecimal;
use crate::state::{ApplicationName, CarriedState, StatePlace, carried_from_wire};
use crate::status::{PlatformError, Reason};
use crate::{FunctionName, NodeName, v1};

/// What a role accepts of one call, whatever the function's own limits say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLimits {
    /// Bytes of a payload, at most.
    pub payload_bytes_max: usize,
    /// Time that a call has where its caller sets none.
    pub timeout_default: Duration,
    /// Time that a caller may ask for, at most; more is shortened to this.
    pub timeout_max: Duration,
    /// Times that a call may be passed on.
    pub hops_max: u32,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 16 << 20,
            timeout_default: Duration::from_secs(30),
            timeout_max: Duration::from_secs(3600),
            hops_max: 8,
        }
    }
}

impl CallLimits {
    /// The time that a call has whose caller asks for this, or for nothing.
    pub fn time(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.timeout_default).min(self.timeout_max)
    }
}

/// Headers of one request or answer, at most.
pub const HEADERS_MAX: usize = 64;
/// Bytes of all names and values of one request's or answer's headers, at most.
pub const HEADERS_BYTES_MAX: usize = 16 << 10;

/// Headers within their limits, in order. Names are compared without regard to ASCII case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Checks the number and size of headers, and that names are not empty and hold no control characters.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] or [`Reason::Malformed`].
    pub fn new(headers: Vec<(String, String)>) -> Result<Self, PlatformError> {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
            let message = format!(
                "{} headers of {bytes} bytes; send at most {HEADERS_MAX} of {HEADERS_BYTES_MAX} bytes",
                headers.len()
            );
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        if headers
            .iter()
            .any(|(name, value)| name.is_empty() || name.chars().chain(value.chars()).any(char::is_control))
        {
            return Err(PlatformError::malformed(
                "a header's name is empty, or its name or value holds a control character",
            ));
        }
        Ok(Self(headers))
    }

    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn from_wire(headers: Vec<v1::Header>) -> Result<Self, PlatformError> {
        Self::new(headers.into_iter().map(|header| (header.name, header.value)).collect())
    }

    pub(crate) fn into_wire(self) -> Vec<v1::Header> {
        self.0.into_iter().map(|(name, value)| v1::Header { name, value }).collect()
    }
}

/// Names one call in logs and answers: 1 to 64 visible ASCII characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CallId(Arc<str>);

impl CallId {
    /// Bytes of an id, at most.
    pub const BYTES_MAX: usize = 64;

    /// An id that nobody else has: 128 random bits in hexadecimal.
    pub fn random() -> Self {
        Self(hexadecimal(&rand::random::<[u8; 16]>(), &mut [0; 32]).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CallId {
    type Err = PlatformError;

    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let fits = (1..=Self::BYTES_MAX).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(given.into()))
            .ok_or_else(|| PlatformError::malformed("call id: use 1 to 64 visible ASCII characters"))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which calls give way where there is no room for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// These first.
    Low,
    /// What a caller gets that says nothing.
    #[default]
    Normal,
    /// These last.
    High,
}

impl Priority {
    /// Every priority, from the one that gives way first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// The priority that a message tells of; one that this side does not know is normal.
    pub fn from_wire(wire: i32) -> Self {
        match v1::Priority::try_from(wire) {
            Ok(v1::Priority::Low) => Self::Low,
            Ok(v1::Priority::High) => Self::High,
            Ok(v1::Priority::Normal | v1::Priority::Unspecified) | Err(_) => Self::Normal,
        }
    }

    /// The priority as its message.
    pub fn to_wire(self) -> v1::Priority {
        match self {
            Self::Low => v1::Priority::Low,
            Self::Normal => v1::Priority::Normal,
            Self::High => v1::Priority::High,
        }
    }
}

impl FromStr for Priority {
    type Err = PlatformError;

    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let known = Self::ALL.into_iter().find(|priority| priority.as_str() == given);
        known.ok_or_else(|| {
            let given: String = given.chars().take(64).collect();
            PlatformError::malformed(format!("priority {given:?}: use low, normal or high"))
        })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One invocation of a function. Clones share the payload.
#[derive(Debug, Clone)]
pub struct Call {
    /// What to run.
    pub function: FunctionName,
    /// Its input.
    pub payload: Bytes,
    /// Its input's headers.
    pub headers: Headers,
    /// Its name in logs.
    pub id: CallId,
    /// Roles that have passed it on.
    pub hops: u32,
    /// Estimate only.
    pub dry_run: bool,
    /// Running it twice does no harm.
    pub retry_safe: bool,
    /// Whether it gives way to others.
    pub priority: Priority,
    /// The brokers that have passed it on, first to last.
    pub via: Vec<NodeName>,
    /// When its answer stops being of use.
    pub deadline: Instant,
    /// Functions to run after this one, each with the answer of the one before, as long as whoever runs this one serves
    /// them.
    pub then: Vec<FunctionName>,
    /// The steps to run in place of the function, which then only names the whole.
    pub flow: Option<Flow>,
    /// The application whose states it reads and writes; without one, the default.
    pub application: Option<ApplicationName>,
    /// States that its caller has, or knows where they are.
    pub states: Vec<CarriedState>,
}

impl Call {
    /// A call of this function with a new id, no headers, not safe to retry.
    pub fn new(function: FunctionName, payload: impl Into<Bytes>, timeout: Duration) -> Self {
        Self::until(Instant::now() + timeout, CallId::random(), function, payload)
    }

    /// The same with this id, until then.
    pub fn until(deadline: Instant, id: CallId, function: FunctionName, payload: impl Into<Bytes>) -> Self {
        Self {
            function,
            payload: payload.into(),
            headers: Headers::default(),
            id,
            hops: 0,
            dry_run: false,
            retry_safe: false,
            priority: Priority::default(),
            via: Vec::new(),
            deadline,
            then: Vec::new(),
            flow: None,
            application: None,
            states: Vec::new(),
        }
    }

    /// Time left until the deadline; zero when it has passed.
    pub fn time_left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// Checks a request as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`], [`Reason::TooLarge`], [`Reason::LoopDetected`], or [`Reason::Late`] where no time is left.
    pub fn from_wire(
        request: v1::InvokeRequest,
        timeout: Option<Duration>,
        limits: &CallLimits,
        now: Instant,
    ) -> Result<Self, PlatformError> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(PlatformError::new(
                Reason::Late,
                "the deadline had passed when the call arrived; give it more time",
            ));
        }
        let hops = request.hops.max(u32::try_from(request.via.len()).unwrap_or(u32::MAX));
        if hops > limits.hops_max {
            let message = format!("passed on {hops} times; do brokers forward to each other?");
            return Err(PlatformError::new(Reason::LoopDetected, message));
        }
        check_several(&request)?;
        let id = if request.call_id.is_empty() { CallId::random() } else { request.call_id.parse()? };
        let call = Self {
            function: request.function.parse()?,
            payload: request.payload,
            headers: Headers::from_wire(request.headers)?,
            id,
            hops: request.hops,
            dry_run: request.dry_run,
            retry_safe: request.retry_safe,
            priority: Priority::from_wire(request.priority),
            via: request.via.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            deadline: now + limits.time(timeout),
            then: request.then.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            flow: request.flow.as_ref().map(Flow::from_wire).transpose()?,
            application: match request.application.as_str() {
                "" => None,
                name => Some(name.parse()?),
            },
            states: carried_from_wire(request.states)?,
        };
        check_payload(call.carried_bytes(), limits)?;
        Ok(call)
    }

    /// Bytes of its payload and of the states that travel with it.
    pub(crate) fn carried_bytes(&self) -> usize {
        let states = self.states.iter().map(|state| match &state.place {
            StatePlace::Content(content) => content.len(),
            StatePlace::At(_) => 0,
        });
        self.payload.len() + states.sum::<usize>()
    }

    /// The message for the next role.
    pub fn to_wire(&self) -> v1::InvokeRequest {
        v1::InvokeRequest { payload: self.payload.clone(), ..self.to_wire_without_payload() }
    }

    /// The same for a payload that goes its own way.
    pub(crate) fn to_wire_without_payload(&self) -> v1::InvokeRequest {
        v1::InvokeRequest {
            function: self.function.as_str().to_owned(),
            payload: Bytes::new(),
            headers: self.headers.clone().into_wire(),
            call_id: self.id.as_str().to_owned(),
            hops: self.hops,
            dry_run: self.dry_run,
            retry_safe: self.retry_safe,
            via: self.via.iter().map(ToString::to_string).collect(),
            priority: self.priority.to_wire().into(),
            then: self.then.iter().map(ToString::to_string).collect(),
            flow: self.flow.as_ref().map(Flow::to_wire),
            application: self.application.as_ref().map(ToString::to_string).unwrap_or_default(),
            states: self.states.iter().map(CarriedState::to_wire).collect(),
        }
    }

    /// The request for the next role, with the time left as its gRPC time-out.
    pub fn to_request(&self, now: Instant) -> Request<v1::InvokeRequest> {
        let mut request = Request::new(self.to_wire());
        request.set_timeout(self.time_left(now));
        request
    }
}

/// More than one function is asked for either as a flow or as functions that follow.
fn check_several(request: &v1::InvokeRequest) -> Result<(), PlatformError> {
    if request.then.len() >= FLOW_STEPS_MAX {
        let message = format!("{} functions in one call; ask for at most {FLOW_STEPS_MAX}", request.then.len() + 1);
        return Err(PlatformError::new(Reason::TooLarge, message));
    }
    if request.flow.is_some() && !request.then.is_empty() {
        return Err(PlatformError::malformed("a call runs a flow, or functions one after the other, not both"));
    }
    Ok(())
}

pub(crate) fn check_payload(bytes: usize, limits: &CallLimits) -> Result<(), PlatformError> {
    if bytes <= limits.payload_bytes_max {
        return Ok(());
    }
    let message = format!("a payload of {bytes} bytes; at most {} are taken here", limits.payload_bytes_max);
    Err(PlatformError::new(Reason::TooLarge, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: v1::InvokeRequest, timeout: Option<Duration>) -> Result<Call, Reason> {
        Call::from_wire(request, timeout, &CallLimits::default(), Instant::now()).map_err(|error| error.reason)
    }

    fn request() -> v1::InvokeRequest {
        v1::InvokeRequest { function: "echo".into(), ..Default::default() }
    }

    #[test]
    fn bad_requests_are_refused_by_reason() {
        assert!(check(request(), None).is_ok());
        assert_eq!(
            check(v1::InvokeRequest { function: "no such/name".into(), ..request() }, None).unwrap_err(),
            Reason::Malformed
        );
        assert_eq!(
            check(v1::InvokeRequest { payload: vec![0; (16 << 20) + 1].into(), ..request() }, None).unwrap_err(),
            Reason::TooLarge
        );
        assert_eq!(check(v1::InvokeRequest { hops: 9, ..request() }, None).unwrap_err(), Reason::LoopDetected);
        assert_eq!(
            check(v1::InvokeRequest { call_id: "two words".into(), ..request() }, None).unwrap_err(),
            Reason::Malformed
        );
        assert_eq!(check(request(), Some(Duration::ZERO)).unwrap_err(), Reason::Late);
        let then = vec!["echo".to_owned()];
        let flow = Flow::chain(["echo".parse().unwrap()]).unwrap().to_wire();
        let both = v1::InvokeRequest { then: then.clone(), flow: Some(flow), ..request() };
        assert_eq!(check(both, None).unwrap_err(), Reason::Malformed);
        let long = v1::InvokeRequest { then: vec!["echo".to_owned(); FLOW_STEPS_MAX], ..request() };
        assert_eq!(check(long, None).unwrap_err(), Reason::TooLarge);
        let many = vec![v1::Header { name: "a".into(), value: String::new() }; HEADERS_MAX + 1];
        assert_eq!(check(v1::InvokeRequest { headers: many, ..request() }, None).unwrap_err(), Reason::TooLarge);
        let content = v1::carried_state::Place::Content(vec![0; 16 << 20].into());
        let states = vec![v1::CarriedState { name: "cart".into(), place: Some(content), ..Default::default() }];
        assert!(check(v1::InvokeRequest { states: states.clone(), ..request() }, None).is_ok());
        let together = v1::InvokeRequest { states, payload: "x".into(), ..request() };
        assert_eq!(check(together, None).unwrap_err(), Reason::TooLarge);
    }

    #[test]
    fn a_caller_gets_the_time_it_asks_for_up_to_the_limit() {
        let now = Instant::now();
        let limits = CallLimits { timeout_max: Duration::from_secs(5), ..CallLimits::default() };
        let left = |timeout| Call::from_wire(request(), timeout, &limits, now).unwrap().time_left(now);
        assert_eq!(left(Some(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(left(Some(Duration::from_secs(20))), Duration::from_secs(5));
        assert_eq!(left(None), Duration::from_secs(5));
    }
}
