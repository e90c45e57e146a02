//! The older system's `UeAppLcmProxy`: what its controllers write decides, and is told to devices.

use device::{Manner, Receiver};
use nigh_proto::channel;
use nigh_proto::older::etsimec::contexts::ContextTuple;
use nigh_proto::older::etsimec::ue_app_lcm_proxy_client::UeAppLcmProxyClient;
use nigh_proto::older::etsimec::{AddressTuple, Lambda, Void};
use tonic::Code;
use tonic::transport::Channel;

use super::*;

fn client(role: &Role) -> UeAppLcmProxyClient<Channel> {
    UeAppLcmProxyClient::new(channel::connect_lazy(&role.older))
}

fn tuple(client: &str, application: &str, server: &str) -> AddressTuple {
    AddressTuple { client: client.into(), app_name: application.into(), server: server.into() }
}

pub(crate) async fn associate(role: &Role, whom: &str, application: &str, server: &str) {
    client(role).associate_address(tuple(whom, application, server)).await.unwrap();
}

pub(crate) async fn count(role: &Role) -> u32 {
    client(role).num_contexts(Void {}).await.unwrap().into_inner().value
}

pub(crate) async fn whereabouts(role: &Role) -> Vec<ContextTuple> {
    client(role).contexts(Void {}).await.unwrap().into_inner().contexts
}

async fn by_associations() -> World {
    World::start_with(|config| {
        config.decider = DeciderConfig::Associations;
        config.mx2 = true;
    })
    .await
}

fn lambda(name: &str) -> Lambda {
    Lambda { value: name.into() }
}

#[tokio::test]
async fn an_older_controller_decides_and_devices_hear_of_it() {
    let world = by_associations().await;
    let asked = async |name: &str| world.role.post("/dev_app/v1/app_contexts", &app_context(name, None)).await.status;
    assert_eq!((asked("other").await, asked("echo").await), (404, 404), "no application, no route");
    let mut older = client(&world.role);
    older.add_lambda(lambda("other")).await.unwrap();
    older.add_lambda(lambda("other")).await.unwrap();
    associate(&world.role, "", "other", "10.9.0.7:10000").await;
    assert_eq!(world.role.listed().await, ["echo", "other"]);
    let devices = [Receiver::start(Manner::Well).await, Receiver::start(Manner::Well).await];
    for device in &devices {
        let (_, created) = world.role.create(&app_context("other", Some(&device.callback()))).await;
        assert_eq!(reference(&created), "grpc://10.9.0.7:10000");
    }
    let told = async |count: usize, server: &str| {
        for device in &devices {
            assert_eq!(device.until(count).await["referenceURI"], server);
        }
    };
    associate(&world.role, "127.0.0.1", "other", "10.9.0.8:10000").await;
    told(1, "grpc://10.9.0.8:10000").await;
    associate(&world.role, "127.0.0.9", "other", "10.9.0.9:10000").await;
    older.remove_address(tuple("127.0.0.1", "other", "")).await.unwrap();
    told(2, "grpc://10.9.0.7:10000").await;
    let table = older.table(Void {}).await.unwrap().into_inner().table;
    assert_eq!(table, [tuple("", "other", "10.9.0.7:10000"), tuple("127.0.0.9", "other", "10.9.0.9:10000")]);
    older.remove_address(tuple("127.0.0.1", "unknown", "")).await.unwrap();
    older.del_lambda(lambda("other")).await.unwrap();
    assert_eq!((world.role.listed().await, count(&world.role).await), (vec!["echo".to_owned()], 2), "contexts stay");
    let contexts = whereabouts(&world.role).await;
    assert!(contexts.iter().all(|context| context.address == "127.0.0.1" && context.edge_router == "10.9.0.7:10000"));
}

#[tokio::test]
async fn what_is_no_association_is_refused() {
    let world = World::start_with(|config| config.associations_max = 1).await;
    for wrong in [tuple("", "", "a:1"), tuple("", "echo", ""), tuple("", "echo", "nowhere"), tuple("me", "echo", "a:1")]
    {
        let refused = client(&world.role).associate_address(wrong.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
    associate(&world.role, "", "echo", "10.9.0.1:1").await;
    let refused = client(&world.role).associate_address(tuple("", "other", "10.9.0.1:1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    associate(&world.role, "", "echo", "10.9.0.2:1").await;
}

#[tokio::test]
async fn what_is_balanced_is_shown_in_the_table_too() {
    let world = World::start().await;
    world.role.create(&app_context("echo", None)).await;
    let table = client(&world.role).table(Void {}).await.unwrap().into_inner().table;
    assert_eq!(table, [tuple("127.0.0.1", "echo", "10.9.0.1:6473")]);
    // An association of this very client goes before.
    associate(&world.role, "127.0.0.1", "echo", "10.9.0.2:6473").await;
    let (_, created) = world.role.create(&app_context("echo", None)).await;
    assert_eq!(reference(&created), "http://10.9.0.2:8080/function/echo");
}
