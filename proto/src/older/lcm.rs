//! Driving a `UeAppLcmProxy` of somebody else, as controllers of the older system do: what tells device applications where to
//! call is told which applications there are and which server each device gets, and tells which contexts it has.

use std::time::Duration;

use tonic::transport::Channel;

use super::etsimec::ue_app_lcm_proxy_client::UeAppLcmProxyClient;
use super::etsimec::{AddressTuple, Lambda, Void};
use crate::channel::{self, Remote};
use crate::identity::Role;
use crate::status::PlatformError;

/// Bytes of a proxy's table or contexts, at most.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A proxy elsewhere.
#[derive(Debug, Clone)]
pub struct LcmProxy {
    client: UeAppLcmProxyClient<Channel>,
    timeout: Duration,
}

/// Who gets which server for an application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Association {
    /// A device's address, as the proxy writes it; empty for all that have no association of their own.
    pub client: String,
    /// The application.
    pub application: String,
    /// `host:port`, or whatever else somebody has written.
    pub server: String,
}

impl LcmProxy {
    /// Connects with the first request, and again whenever the connection is lost; each request has this time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(remote: Remote, timeout: Duration) -> Self {
        let channel = channel::connect_lazy(remote.expecting(&[Role::Mec]));
        let client =
            UeAppLcmProxyClient::new(channel).max_decoding_message_size(channel::message_bytes_max(ANSWER_BYTES_MAX));
        Self { client, timeout }
    }

    fn timed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Lists an application.
    ///
    /// # Errors
    /// Of the connection; a proxy of the older system swallows all others.
    pub async fn add_application(&mut self, name: &str) -> Result<(), PlatformError> {
        let request = self.timed(Lambda { value: name.to_owned() });
        self.client.add_lambda(request).await?;
        Ok(())
    }

    /// Lists it no longer.
    ///
    /// # Errors
    /// As above.
    pub async fn remove_application(&mut self, name: &str) -> Result<(), PlatformError> {
        let request = self.timed(Lambda { value: name.to_owned() });
        self.client.del_lambda(request).await?;
        Ok(())
    }

    /// Sends a client to a server.
    ///
    /// # Errors
    /// As above.
    pub async fn associate(&mut self, association: Association) -> Result<(), PlatformError> {
        let Association { client, application: app_name, server } = association;
        let request = self.timed(AddressTuple { client, app_name, server });
        self.client.associate_address(request).await?;
        Ok(())
    }

    /// Takes that back.
    ///
    /// # Errors
    /// As above.
    pub async fn dissociate(&mut self, client: &str, application: &str) -> Result<(), PlatformError> {
        let (client, app_name) = (client.to_owned(), application.to_owned());
        let request = self.timed(AddressTuple { client, app_name, server: String::new() });
        self.client.remove_address(request).await?;
        Ok(())
    }

    /// All associations, in order.
    ///
    /// # Errors
    /// As above.
    pub async fn associations(&mut self) -> Result<Vec<Association>, PlatformError> {
        let request = self.timed(Void {});
        let table = self.client.table(request).await?.into_inner().table;
        let association =
            |AddressTuple { client, app_name: application, server }| Association { client, application, server };
        let mut associations: Vec<_> = table.into_iter().map(association).collect();
        associations.sort();
        Ok(associations)
    }

    /// Each context, in order, with the server that its device was told.
    ///
    /// # Errors
    /// As above.
    pub async fn contexts(&mut self) -> Result<Vec<Association>, PlatformError> {
        let request = self.timed(Void {});
        let told = self.client.contexts(request).await?.into_inner().contexts;
        let context = |context: super::etsimec::contexts::ContextTuple| Association {
            client: context.address,
            application: context.app_name,
            server: context.edge_router,
        };
        let mut contexts: Vec<_> = told.into_iter().map(context).collect();
        contexts.sort();
        Ok(contexts)
    }
}
