//! Driving a proxy of somebody else, over real sockets: one as the older system's, which forgets everything when it is started
//! again, and another role of this kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use nigh_mec::{Give, LcmProxyConfig};
use nigh_proto::channel;
use nigh_proto::older::etsimec::contexts::ContextTuple;
use nigh_proto::older::etsimec::ue_app_lcm_proxy_server::{UeAppLcmProxy, UeAppLcmProxyServer};
use nigh_proto::older::etsimec::{AddressTuple, Contexts, Lambda, Number, Table, Void};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use super::*;

/// What such a proxy knows, and which contexts it has.
#[derive(Default)]
struct State {
    applications: Vec<String>,
    table: BTreeMap<(String, String), String>,
    contexts: Vec<(String, String)>,
    associated: usize,
}

/// A proxy that swallows what makes no sense.
#[derive(Clone, Default)]
struct Proxy(Arc<Mutex<State>>);

#[tonic::async_trait]
impl UeAppLcmProxy for Proxy {
    async fn associate_address(&self, request: Request<AddressTuple>) -> Result<Response<Void>, Status> {
        let AddressTuple { client, app_name, server } = request.into_inner();
        let mut state = self.0.lock();
        state.table.insert((client, app_name), server);
        state.associated += 1;
        Ok(Response::new(Void {}))
    }

    async fn remove_address(&self, request: Request<AddressTuple>) -> Result<Response<Void>, Status> {
        let AddressTuple { client, app_name, .. } = request.into_inner();
        self.0.lock().table.remove(&(client, app_name));
        Ok(Response::new(Void {}))
    }

    async fn add_lambda(&self, request: Request<Lambda>) -> Result<Response<Void>, Status> {
        self.0.lock().applications.push(request.into_inner().value);
        Ok(Response::new(Void {}))
    }

    async fn del_lambda(&self, request: Request<Lambda>) -> Result<Response<Void>, Status> {
        let gone = request.into_inner().value;
        self.0.lock().applications.retain(|name| *name != gone);
        Ok(Response::new(Void {}))
    }

    async fn num_contexts(&self, _: Request<Void>) -> Result<Response<Number>, Status> {
        let value = u32::try_from(self.0.lock().contexts.len()).unwrap();
        Ok(Response::new(Number { value }))
    }

    async fn table(&self, _: Request<Void>) -> Result<Response<Table>, Status> {
        let row = |((client, app_name), server): (&(String, String), &String)| AddressTuple {
            client: client.clone(),
            app_name: app_name.clone(),
            server: server.clone(),
        };
        Ok(Response::new(Table { table: self.0.lock().table.iter().map(row).collect() }))
    }

    async fn contexts(&self, _: Request<Void>) -> Result<Response<Contexts>, Status> {
        let state = self.0.lock();
        let context = |(address, app_name): &(String, String)| {
            let own = state.table.get(&(address.clone(), app_name.clone()));
            let edge_router = own.or_else(|| state.table.get(&(String::new(), app_name.clone())));
            ContextTuple {
                address: address.clone(),
                app_name: app_name.clone(),
                edge_router: edge_router.cloned().unwrap_or_default(),
            }
        };
        Ok(Response::new(Contexts { contexts: state.contexts.iter().map(context).collect() }))
    }
}

impl Proxy {
    fn serve(&self, listener: TcpListener) -> AbortOnDropHandle<()> {
        let service = UeAppLcmProxyServer::new(self.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            channel::server().add_service(service).serve_with_incoming(channel::incoming(listener)).await.unwrap();
        }))
    }

    /// As `CLIENT APPLICATION SERVER`.
    fn rows(&self) -> Vec<String> {
        let state = self.0.lock();
        state.table.iter().map(|((client, name), server)| format!("{client} {name} {server}")).collect()
    }

    async fn until(&self, what: &str, rows: &[&str]) {
        until(what, async || self.rows() == rows).await;
    }
}

async fn driving(endpoint: Endpoint) -> World {
    let known = vec![
        deployed("echo"),
        computer("computer-1", "10.9.0.1:10000", &["echo"]),
        computer("computer-2", "10.9.0.2:10000", &["echo", "not-deployed"]),
    ];
    World::start_knowing(known, |config| {
        config.give = Give::Computers;
        config.decider = DeciderConfig::Balanced { period: Duration::from_millis(20) };
        config.lcm_proxy = Some(LcmProxyConfig::new(endpoint));
    })
    .await
}

#[tokio::test]
async fn a_proxy_of_the_older_system_is_driven_as_by_its_own_controller() {
    let (proxy, listener) = (Proxy::default(), listen().await);
    let at: Endpoint = listener.local_addr().unwrap().into();
    let _serving = proxy.serve(listener);
    let world = driving(at.clone()).await;
    proxy.until("a default for all", &[" echo 10.9.0.1:10000"]).await;
    until("it is listed", async || proxy.0.lock().applications == ["echo"]).await;

    // Contexts are spread, and nothing is written where nothing has changed.
    let contexts = [("10.0.0.1", "echo"), ("10.0.0.1", "echo"), ("10.0.0.2", "echo"), ("10.0.0.3", "unknown")];
    proxy.0.lock().contexts = contexts.map(|(address, name)| (address.to_owned(), name.to_owned())).into();
    let spread = [" echo 10.9.0.1:10000", "10.0.0.1 echo 10.9.0.1:10000", "10.0.0.2 echo 10.9.0.2:10000"];
    proxy.until("two clients on two computers", &spread).await;
    let written = proxy.0.lock().associated;
    // What an operator has written stays.
    proxy.0.lock().table.insert(("10.0.0.9".into(), "theirs".into()), "10.8.0.1:1".into());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let now = proxy.0.lock().associated;
    assert_eq!((now, proxy.rows().len()), (written, 4));
    proxy.0.lock().table.remove(&("10.0.0.9".into(), "theirs".into()));

    // Whoever loses a server gets another, the default too.
    world.controller.change(computer_gone("computer-1"));
    let left = [" echo 10.9.0.2:10000", "10.0.0.1 echo 10.9.0.2:10000", "10.0.0.2 echo 10.9.0.2:10000"];
    proxy.until("all on the computer that is left", &left).await;
    // One that was started anew, and knows of nothing.
    *proxy.0.lock() = State::default();
    proxy.until("it is told all again", &[" echo 10.9.0.2:10000"]).await;
    until("it is listed", async || proxy.0.lock().applications == ["echo"]).await;
    // An application that nobody serves any more.
    world.controller.change(undeployed("echo"));
    proxy.until("nothing is left", &[]).await;
    until("it is listed no more", async || proxy.0.lock().applications.is_empty()).await;
    world.role.stop().await;
}

#[tokio::test]
async fn another_role_of_this_kind_can_be_driven_and_its_devices_hear_of_it() {
    let theirs = World::start_knowing(Vec::new(), |config| config.decider = DeciderConfig::Associations).await;
    let ours = driving(theirs.role.older.clone()).await;
    until("it lists what is served here", async || theirs.role.listed().await == ["echo"]).await;
    let device = device::Receiver::start(device::Manner::Well).await;
    let (_, created) = theirs.role.create(&app_context("echo", Some(&device.callback()))).await;
    let first = reference(&created).to_owned();
    let other = if first.contains("10.9.0.1") { ("computer-1", "10.9.0.2") } else { ("computer-2", "10.9.0.1") };
    ours.controller.change(computer_gone(other.0));
    let told = device.until(1).await;
    assert!(told["referenceURI"].as_str().unwrap().contains(other.1), "{told}");
    ours.role.stop().await;
    theirs.role.stop().await;
}
