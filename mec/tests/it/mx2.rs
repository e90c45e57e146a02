//! GS MEC 016 1.1.1 as programs of the older system speak it.

use device::{Manner, Receiver};
use nigh_mec::{Device, DeviceError};
use serde_json::json;

use super::*;

const CONTEXTS: &str = "/mx2/v1/app_contexts";

async fn world() -> World {
    World::start_with(|config| {
        config.mx2 = true;
        config.give = nigh_mec::Give::Computers;
    })
    .await
}

fn context(name: &str, callback: &str) -> Value {
    json!({
        "associateUeAppId": "8a1de6f0-38a5-4d27-9a2f-0d5b3e0e4a11",
        "callbackReference": callback,
        "appInfo": {
            "appName": name,
            "appProvider": "Nigh",
            "appSoftVersion": "1.0",
            "appDescription": "",
            "appPackageSource": "http://packages.example/echo",
        },
    })
}

async fn create(world: &World, context: &Value) -> (String, Value) {
    let created = world.role.post(CONTEXTS, context).await;
    assert_eq!(created.status, 201, "{created:?}");
    (format!("{CONTEXTS}/{}", created.body["contextId"].as_str().unwrap()), created.body)
}

#[tokio::test]
async fn it_is_there_only_if_it_was_asked_for() {
    let world = World::start().await;
    assert_eq!(world.role.get("/mx2/v1/app_list").await.status, 404);
}

/// The acceptance case: create, update, delete with 201, 204, and 403 for what is not there.
#[tokio::test]
async fn contexts_are_created_updated_and_deleted() {
    let world = world().await;
    let list = world.role.get("/mx2/v1/app_list").await;
    assert_eq!((list.status, &list.body["ApplicationList"]["appInfo"][0]["appName"]), (200, &json!("echo")));
    let (path, created) = create(&world, &context("echo", "")).await;
    assert_eq!(created["appInfo"]["referenceURI"], "10.9.0.1:10000");
    assert_eq!((created["callbackReference"].as_str(), created["appInfo"].get("appPackageSource")), (Some(""), None));
    assert_eq!(world.role.put(&path, &context("echo", "http://127.0.0.1:9/")).await.status, 204);
    let mut another = context("echo", "");
    another["associateUeAppId"] = json!("another");
    assert_eq!(world.role.put(&path, &another).await.status, 403, "the context is of another device application");
    assert_eq!(world.role.post(CONTEXTS, &context("other", "")).await.status, 403);
    assert_eq!(world.role.delete(&path).await.status, 204);
    assert_eq!(
        (world.role.delete(&path).await.status, world.role.put(&path, &context("echo", "")).await.status),
        (403, 403)
    );
    assert_eq!(world.role.get("/mx2/v1/other").await.status, 404);
}

#[tokio::test]
async fn what_is_not_of_its_form_is_refused() {
    let world = world().await;
    for (name, value) in
        [("associateUeAppId", json!("")), ("appInfo", json!({"appName": "echo"})), ("callbackReference", json!(7))]
    {
        let mut wrong = context("echo", "");
        wrong[name] = value;
        let refused = world.role.post(CONTEXTS, &wrong).await;
        assert_eq!((refused.status, refused.header("content-type")), (400, "application/problem+json"), "{name}");
    }
}

/// Of both interfaces each has contexts of its own.
#[tokio::test]
async fn a_context_of_one_interface_is_none_of_the_other() {
    let world = world().await;
    let (path, _) = create(&world, &context("echo", "")).await;
    let other = path.replace("/mx2/v1", "/dev_app/v1");
    assert_eq!(world.role.delete(&other).await.status, 404);
    assert_eq!(world.role.delete(&path).await.status, 204);
}

/// The acceptance case: the default is the first computer; when it goes the device hears within a second and the next serves.
#[tokio::test]
async fn a_device_follows_from_computer_to_computer() {
    let world = world().await;
    world.controller.change(computer("computer-2", "10.9.0.2:10000", &["echo"]));
    until("both are known", async || {
        let (path, created) = create(&world, &context("echo", "")).await;
        world.role.delete(&path).await;
        created["appInfo"]["referenceURI"] == "10.9.0.1:10000"
    })
    .await;
    let device = Receiver::start(Manner::Well).await;
    create(&world, &context("echo", &device.callback())).await;
    world.controller.change(computer_gone("computer-1"));
    assert_eq!(device.until(1).await, json!({"referenceURI": "10.9.0.2:10000"}));
    world.controller.change(undeployed("echo"));
    until("it is gone", async || {
        world.role.get("/mx2/v1/app_list").await.body["ApplicationList"]["appInfo"] == json!([])
    })
    .await;
    assert_eq!((lcm::count(&world.role).await, device.taken().len()), (1, 1), "this interface does not tell of that");
}

#[tokio::test]
async fn a_device_is_sent_to_where_it_is_best_and_follows() {
    let world = World::start_with(|config| {
        config.decider = DeciderConfig::Associations;
        config.mx2 = true;
    })
    .await;
    lcm::associate(&world.role, "", "echo", "10.9.0.7:10000").await;
    let root: http::Uri = format!("http://{}", world.role.devices).parse().unwrap();
    let join = async |application: &str| {
        let listener = listen().await;
        let reached = listener.local_addr().unwrap().into();
        Device::join(&root, listener, &reached, ["echo".to_owned(), application.to_owned()]).await
    };
    let unknown = join("other").await.unwrap_err();
    assert!(matches!(&unknown, DeviceError::Unknown(name, known) if name == "other" && known == "echo"), "{unknown}");
    let device = join("echo").await.unwrap();
    let mut places: Vec<_> = device.places().map(|(_, place)| place).collect();
    assert_eq!(lcm::count(&world.role).await, 2);
    assert!(places.iter().all(|place| *place.borrow() == "10.9.0.7:10000"));
    lcm::associate(&world.role, "127.0.0.1", "echo", "10.9.0.8:10000").await;
    for place in &mut places {
        tokio::time::timeout(PATIENCE, place.wait_for(|place| place == "10.9.0.8:10000")).await.unwrap().unwrap();
    }
    device.leave().await;
    assert_eq!(lcm::count(&world.role).await, 0);
}

#[tokio::test]
async fn a_device_says_why_it_has_no_place() {
    let nobody = listen().await;
    let at = nobody.local_addr().unwrap();
    drop(nobody);
    let join = async |at: SocketAddr| {
        let listener = listen().await;
        let reached = listener.local_addr().unwrap().into();
        Device::join(&format!("http://{at}").parse().unwrap(), listener, &reached, ["echo".to_owned()])
            .await
            .unwrap_err()
    };
    assert!(matches!(join(at).await, DeviceError::Silent(..)));
    // It does not offer the interface.
    let world = World::start().await;
    assert!(matches!(join(world.role.devices).await, DeviceError::Refused(_, status, _) if status == 404));
}
