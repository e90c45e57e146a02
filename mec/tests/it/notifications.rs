//! What devices are told, as the schemas of the standard say, and how those who do not take it are borne.

use device::{Manner, Receiver};
use serde_json::json;

use super::schema::Schemas;
use super::*;

#[tokio::test]
async fn another_address_is_told_once_and_the_context_follows() {
    let world = World::start().await;
    let device = Receiver::start(Manner::Well).await;
    let (_, created) = world.role.create(&app_context("echo", Some(&device.callback()))).await;
    assert_eq!(reference(&created), "http://10.9.0.1:8080/function/echo");
    world.controller.change(broker_gone("broker-1"));
    let told = device.until(1).await;
    Schemas::read().check("AddressChangeNotification", &told);
    assert_eq!(told["notificationType"], "AddressChangeNotification");
    assert_eq!(
        (&told["contextId"], &told["referenceURI"]),
        (&created["contextId"], &json!("http://10.9.0.2:8080/function/echo"))
    );
    assert_ne!(told["appInstanceId"], created["appInfo"]["userAppInstanceInfo"][0]["appInstanceId"]);
    world.controller.change(broker("broker-3", "10.9.0.3:6473", "10.9.0.3:8080"));
    world.controller.change(broker_gone("broker-2"));
    assert_eq!(device.until(2).await["referenceURI"], "http://10.9.0.3:8080/function/echo");
    assert_eq!(device.paths(), ["/callback", "/callback"]);
}

#[tokio::test]
async fn while_nobody_is_there_a_device_keeps_what_it_knows_and_hears_when_somebody_is() {
    let world = World::start().await;
    let device = Receiver::start(Manner::Well).await;
    world.role.create(&app_context("echo", Some(&device.callback()))).await;
    world.controller.change(broker_gone("broker-2"));
    world.controller.change(broker_gone("broker-1"));
    until("nobody is there", async || world.role.listed().await.is_empty()).await;
    world.controller.change(broker("broker-3", "10.9.0.3:6473", "10.9.0.3:8080"));
    assert_eq!(device.until(1).await["referenceURI"], "http://10.9.0.3:8080/function/echo");
}

#[tokio::test]
async fn several_addresses_that_change_at_once_are_told_together() {
    let world = World::start_with(|config| config.decider = DeciderConfig::Associations).await;
    lcm::associate(&world.role, "", "echo", "10.9.0.1:6473").await;
    let device = Receiver::start(Manner::Well).await;
    let mut asked = app_context("echo", Some(&device.callback()));
    asked["appInfo"]["userAppInstanceInfo"] = json!([{}, {"appLocation": {"countryCode": "IT"}}]);
    world.role.create(&asked).await;
    lcm::associate(&world.role, "", "echo", "10.9.0.2:6473").await;
    let told = device.until(1).await;
    Schemas::read().check("ApplicationContextUpdateNotification", &told);
    let instances = told["userAppInstanceInfo"].as_array().unwrap();
    assert_eq!((&told["notificationType"], instances.len()), (&json!("ApplicationContextUpdateNotification"), 2));
    assert_eq!(instances[1]["appLocation"], json!({"countryCode": "IT"}));
    assert!(instances.iter().all(|instance| instance["referenceURI"] == "http://10.9.0.2:8080/function/echo"));
    assert_ne!(instances[0]["appInstanceId"], instances[1]["appInstanceId"]);
}

#[tokio::test]
async fn a_context_of_a_function_that_is_removed_goes_once_its_device_has_heard() {
    let world = World::start().await;
    let device = Receiver::start(Manner::Well).await;
    let (path, created) = world.role.create(&app_context("echo", Some(&device.callback()))).await;
    let (silent, _) = world.role.create(&app_context("echo", None)).await;
    world.controller.change(undeployed("echo"));
    let told = device.until(1).await;
    Schemas::read().check("ApplicationContextDeleteNotification", &told);
    assert_eq!(
        (&told["notificationType"], &told["contextId"]),
        (&json!("ApplicationContextDeleteNotification"), &created["contextId"])
    );
    for path in [path, silent] {
        until("it is gone", async || world.role.put(&path, &app_context("echo", None)).await.status == 404).await;
    }
}

#[tokio::test]
async fn where_an_application_may_run_now_is_told_to_who_wants_to_know() {
    let world = World::start_with(|config| {
        let italy = nigh_mec::Location { country: Some("IT".into()), point: None };
        config.locations.insert("broker-3".parse().unwrap(), italy);
    })
    .await;
    let device = Receiver::start(Manner::Well).await;
    let mut asked = app_context("echo", Some(&device.callback()));
    asked["appLocationUpdates"] = json!(true);
    world.role.create(&asked).await;
    world.controller.change(broker("broker-3", "10.9.0.3:6473", "10.9.0.3:8080"));
    let told = device.until(1).await;
    Schemas::read().check("ApplicationLocationAvailabilityNotification", &told);
    assert_eq!(told["availableLocations"], json!([{"appLocation": {"countryCode": "IT"}}]));
}

#[tokio::test]
async fn who_does_not_take_it_is_told_a_few_times_and_keeps_the_context() {
    for manner in [Manner::Refusing, Manner::Redirecting] {
        let world = World::start().await;
        let device = Receiver::start(manner).await;
        let (path, _) = world.role.create(&app_context("echo", Some(&device.callback()))).await;
        world.controller.change(broker_gone("broker-1"));
        device.until(3).await;
        until("it is given up", async || {
            let metrics = world.config.telemetry.metrics().unwrap();
            metrics.contains("nigh_mec_contexts{state=\"failing\"} 1")
        })
        .await;
        assert_eq!(device.paths(), ["/callback"; 3], "no redirect is followed, and there is no fourth try");
        // It is there, and told again once it says that it can be told.
        device.behave(Manner::Well);
        assert_eq!(world.role.put(&path, &app_context("echo", Some(&device.callback()))).await.status, 204);
        assert_eq!(device.until(4).await["referenceURI"], "http://10.9.0.2:8080/function/echo");
    }
}

#[tokio::test]
async fn who_hangs_keeps_nobody_waiting_and_hears_only_the_newest() {
    let world = World::start_with(|config| {
        config.callbacks.timeout = Duration::from_secs(600);
        config.decider = DeciderConfig::Associations;
    })
    .await;
    let associate = async |server: &str| lcm::associate(&world.role, "", "echo", server).await;
    associate("10.9.0.1:6473").await;
    let (hanging, well) = (Receiver::start(Manner::Hanging).await, Receiver::start(Manner::Well).await);
    world.role.create(&app_context("echo", Some(&hanging.callback()))).await;
    world.role.create(&app_context("echo", Some(&well.callback()))).await;
    associate("10.9.0.2:6473").await;
    assert_eq!(well.until(1).await["referenceURI"], "http://10.9.0.2:8080/function/echo");
    hanging.until(1).await;
    // What it hangs on is old by now, so that is given up.
    associate("10.9.0.3:6473").await;
    assert_eq!(hanging.until(2).await["referenceURI"], "grpc://10.9.0.3:6473");
    assert_eq!(well.until(2).await["referenceURI"], "grpc://10.9.0.3:6473");
}

#[tokio::test]
async fn a_callback_leads_nowhere_but_to_the_device_unless_the_operator_allows_it() {
    let world = World::start_with(|config| config.callbacks.networks = vec!["127.0.5.0/24".parse().unwrap()]).await;
    let ask = async |callback: &str| {
        world.role.post("/dev_app/v1/app_contexts", &app_context("echo", Some(callback))).await.status
    };
    for refused in [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "https://127.0.0.1/",
        "http://hooks.example/",
        "ftp://127.0.0.1/",
    ] {
        assert_eq!(ask(refused).await, 403, "{refused}");
    }
    assert_eq!((ask("http://127.0.0.1:9/").await, ask("http://127.0.5.9:9/").await), (201, 201));
    let (path, _) = world.role.create(&app_context("echo", None)).await;
    let moved = world.role.put(&path, &app_context("echo", Some("http://192.168.0.1/"))).await;
    assert_eq!(moved.status, 403, "nor does an update");
}
