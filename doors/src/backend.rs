//! What stands behind the doors: a broker in the same process, or one elsewhere ([`RemoteBroker`](crate::RemoteBroker)).

use std::future::Future;

use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::{FunctionName, PlatformError};

/// What runs the calls of the HTTP door, and also knows which functions there are.
pub trait Backend: HttpHandler {
    /// Whether a function can be called, as far as is known.
    ///
    /// # Errors
    /// [`Reason::UnknownFunction`](nigh_proto::Reason::UnknownFunction) where it certainly cannot.
    fn check_known(&self, function: &FunctionName) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Learns of which [kind](HttpHandler::kind) a function is, where that takes asking.
    fn learn_kind(&self, _function: &FunctionName) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}
