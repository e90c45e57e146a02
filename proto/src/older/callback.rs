//! Telling a client of the older system what came of its asynchronous call: `uiiit.rpc.CallbackServer`, in the clear as there.

use tonic::Request;

use super::rpc::LambdaResponse;
use super::rpc::callback_server_client::CallbackServerClient;
use crate::channel;
use crate::name::Endpoint;
use crate::status::PlatformError;

/// Hands a response to the callback server there.
///
/// # Errors
/// [`PlatformError`] where it does not take it.
pub async fn call_back(endpoint: &Endpoint, response: LambdaResponse) -> Result<(), PlatformError> {
    let mut client = CallbackServerClient::new(channel::connect_lazy(endpoint));
    client.receive_response(Request::new(response)).await?;
    Ok(())
}
