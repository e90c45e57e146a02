//! Functions and failures as AWS Lambda tells of them.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use nigh_proto::{Deployment, FunctionName, PlatformError, Reason};
use serde_json::{Value, json};

use crate::answer::{self, Answer, put};
use crate::namespace::{Entity, Namespace};

/// The one version that every function has.
pub(super) const LATEST: &str = "$LATEST";
/// Elements of a list: at most, and where nobody says how many.
pub(super) const LIST_MAX: u64 = 10_000;
pub(super) const LIST_DEFAULT: u64 = 50;
/// How the name of a function begins that says where it is.
const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:";

static ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Why a request is not granted.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    kind: &'static str,
    message: String,
    retry_after_s: Option<u64>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), retry_after_s: None }
    }

    pub(super) fn unknown(function: &str) -> Self {
        let function: String = function.chars().take(170).collect();
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", format!("Function not found: {ARN}{function}"))
    }

    pub(super) fn unknown_path(method: &Method, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let message = format!("{method} {path} is nothing that this door knows; functions are invoked and listed here");
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    pub(super) fn respond(self) -> Answer {
        let whose = if self.status.is_client_error() { "User" } else { "Service" };
        let mut told = answer::json(self.status, &json!({ "Type": whose, "Message": self.message }));
        put(&mut told, &ERROR_TYPE, self.kind);
        if let Some(seconds) = self.retry_after_s {
            told.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        told
    }
}

impl From<PlatformError> for Failure {
    fn from(error: PlatformError) -> Self {
        let (status, kind) = match error.reason {
            Reason::UnknownFunction | Reason::UnknownCall | Reason::UnknownTrigger => {
                (StatusCode::NOT_FOUND, "ResourceNotFoundException")
            }
            Reason::Malformed => (StatusCode::BAD_REQUEST, "InvalidRequestContentException"),
            // Not one of those that SDKs try again, which would multiply the call.
            Reason::LoopDetected => (StatusCode::BAD_REQUEST, "RecursiveInvocationException"),
            Reason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException"),
            Reason::QueueFull | Reason::TooBusy | Reason::OutOfBudget => {
                (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException")
            }
            Reason::NotAllowed | Reason::Unauthenticated => (StatusCode::FORBIDDEN, "AccessDeniedException"),
            Reason::Unreachable | Reason::NotServing | Reason::NotReady | Reason::StateUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceException")
            }
            Reason::Late
            | Reason::Disconnected
            | Reason::StateConflict
            | Reason::StateUnsaved
            | Reason::Protocol
            | Reason::Cancelled
            | Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "ServiceException"),
        };
        let retry_after_s = error.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        Self { retry_after_s, ..Self::new(status, kind, error.message) }
    }
}

/// A function's name without where it is, and the version that it names.
pub(super) fn qualified(given: &str) -> (String, Option<String>) {
    let parts: Vec<&str> = given.split(':').collect();
    let rest = match parts[..] {
        ["arn", _, "lambda", _, _, "function", ref rest @ ..] | [_, "function", ref rest @ ..] => rest,
        _ => &parts[..],
    };
    let name = rest.first().copied().unwrap_or_default().to_owned();
    (name, (rest.len() > 1).then(|| rest[1..].join(":")))
}

/// The function that the callers of a namespace know by this name.
pub(super) fn function_of(namespace: &Namespace, name: &str) -> Option<FunctionName> {
    Entity::new(namespace, None, name).function()
}

/// The name by which the callers of its namespace know a function.
pub(super) fn name_of(function: &FunctionName) -> String {
    let Entity { package, name, .. } = Entity::of(function);
    package.map_or_else(|| name.clone(), |package| format!("{package}.{name}"))
}

/// What is deployed in a namespace, by the names that its callers know.
pub(super) fn of_namespace(namespace: &Namespace, deployed: Vec<Deployment>) -> Vec<(String, Deployment)> {
    let named = deployed.into_iter().filter_map(|deployment| {
        let is_theirs = Entity::of(&deployment.name).namespace == *namespace;
        is_theirs.then(|| (name_of(&deployment.name), deployment))
    });
    let mut named: Vec<_> = named.collect();
    named.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    named
}

/// A function's configuration.
pub(super) fn configuration(name: &str, deployment: &Deployment) -> Value {
    json!({
        "FunctionName": name,
        "FunctionArn": format!("{ARN}{name}"),
        "Runtime": "provided.al2023",
        "Handler": deployment.kind.to_string(),
        "CodeSize": deployment.module_bytes,
        "CodeSha256": deployment.module.to_string(),
        "RevisionId": deployment.version.to_string(),
        "Timeout": u64::try_from(deployment.limits.timeout.as_millis().div_ceil(1000)).unwrap_or(u64::MAX),
        "MemorySize": deployment.limits.memory_bytes.div_ceil(1 << 20),
        "Version": LATEST,
        "PackageType": "Zip",
        "State": "Active",
    })
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Digest, Kind, Limits};

    use super::*;

    #[test]
    fn names_are_understood_in_every_form() {
        let of = |given| {
            let (name, version) = qualified(given);
            (name, version.unwrap_or_default())
        };
        for (given, name, version) in [
            ("echo", "echo", ""),
            ("echo:$LATEST", "echo", "$LATEST"),
            ("123456789012:function:echo", "echo", ""),
            ("arn:aws:lambda:eu-west-1:123456789012:function:echo:7", "echo", "7"),
            ("arn:aws:lambda:eu-west-1:123456789012:function:", "", ""),
            ("", "", ""),
        ] {
            assert_eq!(of(given), (name.to_owned(), version.to_owned()), "{given}");
        }
    }

    #[test]
    fn every_reason_has_a_kind_that_sdks_know() {
        for &reason in Reason::ALL {
            let told = Failure::from(PlatformError::new(reason, "x")).respond();
            assert!(told.status().as_u16() >= 400 && told.headers().contains_key(&ERROR_TYPE), "{reason:?}");
            let is_throttled = told.headers()[&ERROR_TYPE] == "TooManyRequestsException";
            assert_eq!(is_throttled, told.status() == StatusCode::TOO_MANY_REQUESTS);
        }
    }

    #[test]
    fn functions_are_listed_by_their_names_in_the_namespace() {
        let deployment = |name: &str| {
            let name = name.parse().unwrap();
            Deployment::new(name, Digest::of(b"m"), 1, Kind::Native, Limits::default(), Vec::new())
        };
        let deployed: Vec<_> = ["acme..hello", "math.add", "hello"].map(deployment).into();
        let of = |namespace: &str| {
            let named = of_namespace(&namespace.parse().unwrap(), deployed.clone());
            named.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!((of("guest"), of("acme")), (vec!["hello".into(), "math.add".into()], vec!["hello".into()]));
        assert_eq!(configuration("hello", &deployed[2])["Timeout"], 10);
    }
}
