//! The older system's `UeAppLcmProxy`: associations written by its controllers and operators, and what is asked about them.

use std::net::IpAddr;
use std::sync::Arc;

use nigh_proto::older::etsimec::contexts::ContextTuple;
use nigh_proto::older::etsimec::ue_app_lcm_proxy_server::{UeAppLcmProxy, UeAppLcmProxyServer};
use nigh_proto::older::etsimec::{AddressTuple, Contexts, Lambda, Number, Table, Void};
use nigh_proto::{PlatformError, Reason};
use tonic::{Request, Response, Status};

use crate::error::Refusal;
use crate::mec::Mec;
use crate::server::Server;

/// Bytes of an application's name, at most.
const NAME_BYTES_MAX: usize = 128;

/// The service in front of what devices are told.
pub(super) struct LcmIngress(Arc<Mec>);

impl LcmIngress {
    /// The service, ready to be added to a server.
    pub(super) fn service(mec: Arc<Mec>) -> UeAppLcmProxyServer<Self> {
        UeAppLcmProxyServer::new(Self(mec))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let reason = match &refusal {
            Refusal::TooMany { .. } => Reason::OutOfBudget,
            Refusal::Store(_) => Reason::NotServing,
            _ => Reason::Malformed,
        };
        PlatformError::new(reason, refusal.to_string()).into()
    }
}

/// Whose association it is, and for which application.
fn whose(tuple: &AddressTuple) -> Result<(Option<IpAddr>, &str), Refusal> {
    let client = match tuple.client.as_str() {
        "" => None,
        client => {
            let address =
                client.parse::<IpAddr>().map_err(|_| malformed(format!("client {client:?} is no address")))?;
            Some(address.to_canonical())
        }
    };
    Ok((client, name(&tuple.app_name)?))
}

fn name(given: &str) -> Result<&str, Refusal> {
    let fits = !given.is_empty() && given.len() <= NAME_BYTES_MAX;
    if fits { Ok(given) } else { Err(malformed(format!("an application's name has 1 to {NAME_BYTES_MAX} bytes"))) }
}

fn malformed(what: String) -> Refusal {
    Refusal::Malformed(what)
}

#[tonic::async_trait]
impl UeAppLcmProxy for LcmIngress {
    async fn associate_address(&self, request: Request<AddressTuple>) -> Result<Response<Void>, Status> {
        let tuple = request.into_inner();
        let (client, application) = whose(&tuple)?;
        let server: Server =
            tuple.server.parse().map_err(|error: crate::server::ServerError| malformed(error.to_string()))?;
        self.0.associate(|associations| associations.associate(client, application, server)).await?;
        Ok(Response::new(Void {}))
    }

    async fn remove_address(&self, request: Request<AddressTuple>) -> Result<Response<Void>, Status> {
        let tuple = request.into_inner();
        let (client, application) = whose(&tuple)?;
        self.0.associate(|associations| associations.remove(client, application)).await?;
        Ok(Response::new(Void {}))
    }

    async fn add_lambda(&self, request: Request<Lambda>) -> Result<Response<Void>, Status> {
        let lambda = request.into_inner().value;
        let name = name(&lambda)?;
        self.0.associate(|associations| associations.add_application(name)).await?;
        Ok(Response::new(Void {}))
    }

    async fn del_lambda(&self, request: Request<Lambda>) -> Result<Response<Void>, Status> {
        let lambda = request.into_inner().value;
        self.0.associate(|associations| associations.remove_application(&lambda)).await?;
        Ok(Response::new(Void {}))
    }

    async fn num_contexts(&self, _: Request<Void>) -> Result<Response<Number>, Status> {
        let (contexts, _) = self.0.counts();
        Ok(Response::new(Number { value: u32::try_from(contexts).unwrap_or(u32::MAX) }))
    }

    async fn table(&self, _: Request<Void>) -> Result<Response<Table>, Status> {
        let tuple = |(client, app_name, server)| AddressTuple { client, app_name, server };
        Ok(Response::new(Table { table: self.0.table().into_iter().map(tuple).collect() }))
    }

    async fn contexts(&self, _: Request<Void>) -> Result<Response<Contexts>, Status> {
        let tuple = |(address, app_name, edge_router)| ContextTuple { address, app_name, edge_router };
        Ok(Response::new(Contexts { contexts: self.0.whereabouts().into_iter().map(tuple).collect() }))
    }
}
