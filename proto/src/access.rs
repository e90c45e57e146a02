//! Who may ask for what: one rule for each method of the wire, checked before a request reaches its room.
//!
//! Over a plain connection nobody proves anything and everything is allowed; that is why nothing listens plainly beyond the
//! machine itself unless told so. Over TLS what no rule allows is refused.

use std::task::{Context, Poll};

use std::sync::Arc;

use futures_util::future::{Either, Ready, ready};
use http::{Extensions, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::identity::{Identity, Role};
use crate::name::NodeName;
use crate::status::{PlatformError, Reason};
use crate::tls::complaints::Complaints;
use crate::tls::connection::{Peer, Proof};

/// Who may have a function run.
pub const CALLERS: &[Role] = &[Role::Client, Role::Broker, Role::Computer, Role::Operator];

/// A method, what it is for, and who may use it.
#[derive(Debug)]
struct Rule {
    path: &'static str,
    /// As in "may not …".
    deed: &'static str,
    roles: &'static [Role],
}

const fn rule(path: &'static str, deed: &'static str, roles: &'static [Role]) -> Rule {
    Rule { path, deed, roles }
}

/// The most frequent first.
const RULES: &[Rule] = &[
    rule("/nigh.v1.Functions/Invoke", "call functions", CALLERS),
    rule("/nigh.v1.Functions/InvokeStream", "call functions", CALLERS),
    rule("/nigh.v1.Functions/Exchange", "call functions", CALLERS),
    rule("/nigh.v1.Asynchronous/Accept", "call functions", CALLERS),
    rule("/nigh.v1.Asynchronous/Result", "read results", CALLERS),
    rule("/nigh.v1.Asynchronous/Queue", "see how full the queue is", LOOKERS),
    rule("/nigh.v1.Asynchronous/DeadLetters", "see dead letters", OPERATORS),
    rule("/nigh.v1.Asynchronous/RetryDeadLetter", "retry dead letters", OPERATORS),
    rule("/nigh.v1.Asynchronous/DropDeadLetter", "drop dead letters", OPERATORS),
    rule("/nigh.v1.Triggers/AddTrigger", "add triggers", OPERATORS),
    rule("/nigh.v1.Triggers/ListTriggers", "list triggers", LOOKERS),
    rule("/nigh.v1.Triggers/RemoveTrigger", "remove triggers", OPERATORS),
    rule("/nigh.v1.Controller/Announce", "announce itself", NODES),
    rule("/nigh.v1.Controller/Attend", "announce itself", NODES),
    rule("/nigh.v1.Controller/Withdraw", "withdraw itself", NODES),
    rule("/nigh.v1.Controller/Watch", "watch the registry", &[Role::Computer, Role::Broker, Role::Mec, Role::Operator]),
    rule("/nigh.v1.Controller/FetchModule", "fetch modules", &[Role::Computer, Role::Operator]),
    rule("/nigh.v1.Controller/Deploy", "deploy functions", OPERATORS),
    rule("/nigh.v1.Controller/Remove", "remove functions", OPERATORS),
    rule("/nigh.v1.Controller/List", "list functions", LOOKERS),
    rule("/nigh.v1.Computer/StreamUtilisation", "see how busy a computer is", LOOKERS),
    rule("/nigh.v1.Computer/Status", "see how a computer is", LOOKERS),
    // A function may log what another caller has sent it.
    rule("/nigh.v1.Computer/Logs", "read logs", OPERATORS),
    rule("/nigh.v1.Broker/Routes", "read routes", READERS),
    rule("/nigh.v1.Broker/SetRoute", "edit routes", EDITORS),
    rule("/nigh.v1.Broker/RemoveRoute", "edit routes", EDITORS),
    rule("/nigh.v1.Broker/FlushRoutes", "edit routes", EDITORS),
    rule("/nigh.v1.State/Take", "take over states", COMPUTERS),
    rule("/nigh.v1.State/Taken", "take over states", COMPUTERS),
    rule("/nigh.v1.State/ListStates", "list states", OPERATORS),
    // What a function keeps may be of any of its callers.
    rule("/nigh.v1.State/GetState", "read states", OPERATORS),
    rule("/nigh.v1.State/PutState", "write states", OPERATORS),
    rule("/nigh.v1.State/RemoveState", "remove states", OPERATORS),
    rule("/nigh.v1.StateDirectory/Locate", "find states", COMPUTERS),
    rule("/nigh.v1.StateDirectory/Claim", "claim states", COMPUTERS),
    rule("/nigh.v1.StateDirectory/Forget", "forget states", COMPUTERS),
    // What is kept of functions may be secret: parameters that they are called with.
    rule("/nigh.v1.Documents/ListDocuments", "read what doors keep of functions", KEEPERS),
    rule("/nigh.v1.Documents/PutDocument", "write what doors keep of functions", OPERATORS),
    rule("/nigh.v1.Documents/RemoveDocument", "write what doors keep of functions", OPERATORS),
    // The older system's. Its nodes have no names that a certificate could prove, so over TLS an operator speaks for them.
    rule("/uiiit.rpc.EdgeServer/RunLambda", "call functions", CALLERS),
    // Its callers say themselves where states are, and fetch them there.
    rule("/uiiit.rpc.StateServer/Get", "read states of callers", CALLERS),
    rule("/uiiit.rpc.StateServer/Put", "write states of callers", CALLERS),
    rule("/uiiit.rpc.StateServer/Del", "remove states of callers", CALLERS),
    rule("/uiiit.rpc.EdgeComputer/StreamUtil", "see how busy a computer is", LOOKERS),
    rule("/uiiit.rpc.EdgeController/AnnounceComputer", "announce nodes of the older system", OPERATORS),
    rule("/uiiit.rpc.EdgeController/AnnounceRouter", "announce nodes of the older system", OPERATORS),
    rule("/uiiit.rpc.EdgeController/RemoveComputer", "remove nodes of the older system", OPERATORS),
    rule("/uiiit.rpc.EdgeRouter/Configure", "edit routes", EDITORS),
    rule("/uiiit.rpc.EdgeRouter/GetTable", "read routes", READERS),
    rule("/uiiit.rpc.EdgeRouter/GetNumTables", "read routes", READERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/associateAddress", "send devices elsewhere", STEERERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/removeAddress", "send devices elsewhere", STEERERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/addLambda", "list applications", STEERERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/delLambda", "list applications", STEERERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/numContexts", "see where devices are", STEERERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/table", "see where devices are", STEERERS),
    rule("/uiiit.etsimec.rpc.UeAppLcmProxy/contexts", "see where devices are", STEERERS),
];

const NODES: &[Role] = &[Role::Computer, Role::Broker];
const COMPUTERS: &[Role] = &[Role::Computer];
const OPERATORS: &[Role] = &[Role::Operator];
const READERS: &[Role] = &[Role::Operator, Role::Client, Role::Broker, Role::Controller];
const EDITORS: &[Role] = &[Role::Operator, Role::Controller];
const KEEPERS: &[Role] = &[Role::Operator, Role::Broker];
// One that tells devices where to call may drive another.
const STEERERS: &[Role] = &[Role::Operator, Role::Controller, Role::Mec];
const LOOKERS: &[Role] = &[Role::Operator, Role::Client, Role::Broker];

/// Checks that a peer may use a method.
fn check(peer: &Peer, path: &str) -> Result<(), Status> {
    if *peer.proof == Proof::Plain {
        return Ok(());
    }
    let Some(rule) = RULES.iter().find(|rule| rule.path == path) else {
        return Err(Status::new(Code::Unimplemented, format!("there is no {path} here")));
    };
    allow(peer, rule.deed, rule.roles).map_err(Status::from)
}

/// Checks that a peer is one of `roles`; `deed` is what it wants, as in "may not …".
///
/// # Errors
/// [`Reason::NotAllowed`] or [`Reason::Unauthenticated`], with the role seen and those needed.
pub fn allow(peer: &Peer, deed: &str, roles: &[Role]) -> Result<(), PlatformError> {
    let needed = || {
        let words: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        words.join(" or ")
    };
    match &*peer.proof {
        Proof::Plain => Ok(()),
        Proof::Certificate(Ok(identity)) if roles.contains(&identity.role) => Ok(()),
        Proof::Certificate(Ok(identity)) => {
            let needed = needed();
            let message = format!(
                "{identity} may not {deed}: that needs a certificate of role {needed}; use one, or issue it with `nigh ca issue`"
            );
            Err(PlatformError::new(Reason::NotAllowed, message))
        }
        Proof::Certificate(Err(error)) => {
            let message = format!("the certificate does not say whose it is: {error}");
            Err(PlatformError::new(Reason::Unauthenticated, message))
        }
        Proof::Nobody => {
            let message = format!("who shows no certificate may not {deed}: that needs one of role {}", needed());
            Err(PlatformError::new(Reason::Unauthenticated, message))
        }
    }
}

/// Checks that a request about a node comes from that very node: a computer's certificate speaks for that computer alone.
///
/// # Errors
/// [`Reason::NotAllowed`].
pub fn allow_only(extensions: &Extensions, role: Option<Role>, name: &NodeName) -> Result<(), PlatformError> {
    let Some(peer) = extensions.get::<Peer>() else { return Err(unknown_peer()) };
    match &*peer.proof {
        Proof::Plain => Ok(()),
        Proof::Certificate(Ok(identity)) if identity.name == *name && role.is_none_or(|role| role == identity.role) => {
            Ok(())
        }
        Proof::Certificate(Ok(identity)) => {
            let whom = role.map_or_else(|| name.to_string(), |role| Identity { role, name: name.clone() }.to_string());
            let message = format!(
                "the certificate is of {identity}, so it may not speak for {whom}; start that node under the name in its certificate"
            );
            Err(PlatformError::new(Reason::NotAllowed, message))
        }
        Proof::Certificate(Err(_)) | Proof::Nobody => {
            Err(PlatformError::new(Reason::Unauthenticated, format!("nothing proves that this is {name}")))
        }
    }
}

/// No door of this platform lets in a connection without saying whose it is.
fn unknown_peer() -> PlatformError {
    PlatformError::new(Reason::Internal, "a request came over a connection of nobody; this is a defect")
}

/// Puts the rules before services.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    complaints: Arc<Complaints>,
}

impl<S> Layer<S> for Rules {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, complaints: self.complaints.clone() }
    }
}

/// Services behind the rules.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    complaints: Arc<Complaints>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let checked = peer.ok_or_else(|| unknown_peer().into()).and_then(|peer| check(peer, request.uri().path()));
        let Err(refusal) = checked else { return Either::Right(self.inner.call(request)) };
        if let Some(peer) = peer
            && self.complaints.is_news(peer.address.ip(), "not-allowed")
        {
            tracing::warn!(peer = %peer.address, path = request.uri().path(), "a request was refused: {}", refusal.message());
        }
        Either::Left(ready(Ok(refusal.into_http())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn peer(proof: Proof) -> Peer {
        Peer {
            address: "127.0.0.1:1".parse().unwrap(),
            proof: Arc::new(proof),
            busy: crate::connections::Busy::default(),
        }
    }

    fn of(role: Role, name: &str) -> Peer {
        peer(Proof::Certificate(Ok(Identity { role, name: name.parse().unwrap() })))
    }

    /// Every method in the `.proto` files.
    fn methods() -> BTreeSet<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/nigh/v1");
        let mut methods = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let mut service = String::new();
            for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
                let mut words = line.split([' ', '(', '{']).filter(|word| !word.is_empty());
                match (words.next(), words.next()) {
                    (Some("service"), Some(name)) => service = name.to_owned(),
                    (Some("rpc"), Some(name)) => drop(methods.insert(format!("/nigh.v1.{service}/{name}"))),
                    _ => {}
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_has_a_rule() {
        let ruled: BTreeSet<String> = RULES.iter().map(|rule| rule.path.to_owned()).collect();
        assert_eq!(ruled.into_iter().filter(|path| path.starts_with("/nigh.v1.")).collect::<BTreeSet<_>>(), methods());
    }

    #[test]
    fn roles_may_do_what_the_table_says_and_nothing_else() {
        let allowed = |role: Role| -> Vec<&str> {
            let may = |rule: &&Rule| check(&of(role, "x"), rule.path).is_ok();
            RULES
                .iter()
                .filter(may)
                .filter(|rule| rule.path.starts_with("/nigh.v1."))
                .map(|rule| rule.path.rsplit('/').next().unwrap())
                .collect()
        };
        assert_eq!(allowed(Role::Controller), ["Routes", "SetRoute", "RemoveRoute", "FlushRoutes"]);
        assert_eq!(
            allowed(Role::Client),
            [
                "Invoke",
                "InvokeStream",
                "Exchange",
                "Accept",
                "Result",
                "Queue",
                "ListTriggers",
                "List",
                "StreamUtilisation",
                "Status",
                "Routes"
            ]
        );
        assert_eq!(
            allowed(Role::Computer),
            [
                "Invoke",
                "InvokeStream",
                "Exchange",
                "Accept",
                "Result",
                "Announce",
                "Attend",
                "Withdraw",
                "Watch",
                "FetchModule",
                "Take",
                "Taken",
                "Locate",
                "Claim",
                "Forget"
            ]
        );
        assert!(!allowed(Role::Broker).contains(&"Deploy") && !allowed(Role::Broker).contains(&"SetRoute"));
        let operators: Vec<_> = allowed(Role::Operator);
        assert!(operators.contains(&"Deploy") && operators.contains(&"Logs") && !operators.contains(&"Announce"));
    }

    #[test]
    fn a_refusal_names_the_role_seen_and_the_one_needed() {
        let refused = check(&of(Role::Client, "ada"), "/nigh.v1.Controller/Deploy").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("client ada may not deploy functions"), "{}", refused.message());
        assert!(refused.message().contains("role operator"), "{}", refused.message());
        let refused = check(&peer(Proof::Nobody), "/nigh.v1.Functions/Invoke").unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        let refused = check(&of(Role::Operator, "ada"), "/nigh.v1.Controller/Undo").unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(check(&peer(Proof::Plain), "/nigh.v1.Controller/Deploy").is_ok());
    }

    #[test]
    fn a_node_speaks_for_itself_alone() {
        let name: NodeName = "camera-7".parse().unwrap();
        let allowed = |peer: Peer, role| {
            let mut extensions = Extensions::new();
            extensions.insert(peer);
            allow_only(&extensions, role, &name).map_err(|error| error.reason)
        };
        assert_eq!(allowed(of(Role::Computer, "camera-7"), Some(Role::Computer)), Ok(()));
        assert_eq!(allowed(of(Role::Computer, "camera-7"), None), Ok(()));
        assert_eq!(allowed(of(Role::Computer, "camera-8"), Some(Role::Computer)), Err(Reason::NotAllowed));
        assert_eq!(allowed(of(Role::Broker, "camera-7"), Some(Role::Computer)), Err(Reason::NotAllowed));
        assert_eq!(allowed(peer(Proof::Nobody), Some(Role::Computer)), Err(Reason::Unauthenticated));
        assert_eq!(allowed(peer(Proof::Plain), Some(Role::Computer)), Ok(()));
    }
}
