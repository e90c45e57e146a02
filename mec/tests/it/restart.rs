//! What was kept is there after a restart, and devices hear what has changed in the meantime.

use device::{Manner, Receiver};

use super::*;

#[tokio::test]
async fn contexts_survive_a_restart_and_their_devices_stay_where_they_are() {
    let mut world = World::start().await;
    let device = Receiver::start(Manner::Well).await;
    let mut paths = Vec::new();
    for _ in 0..5 {
        paths.push(world.role.create(&app_context("echo", Some(&device.callback()))).await.0);
    }
    assert_eq!(world.role.delete(&paths[0]).await.status, 204);
    world.restart().await;
    assert_eq!(world.role.put(&paths[0], &app_context("echo", None)).await.status, 404);
    for path in &paths[1..] {
        assert_eq!(world.role.put(path, &app_context("echo", None)).await.status, 204);
    }
    assert_eq!(lcm::count(&world.role).await, 4);
    // What they were told holds, so that there is nothing to tell; the next change is told.
    world.controller.change(broker_gone("broker-1"));
    device.until(4).await;
    assert!(device.taken().iter().all(|told| told["referenceURI"] == "http://10.9.0.2:8080/function/echo"));
    let _ = world.folder.path();
}

#[tokio::test]
async fn what_changed_while_it_was_away_is_told_once_it_is_back() {
    let mut world = World::start().await;
    let device = Receiver::start(Manner::Well).await;
    world.role.create(&app_context("echo", Some(&device.callback()))).await;
    world.role.shutdown.cancel();
    world.controller.change(broker_gone("broker-1"));
    world.restart().await;
    assert_eq!(device.until(1).await["referenceURI"], "http://10.9.0.2:8080/function/echo");
    world.role.shutdown.cancel();
    world.controller.change(undeployed("echo"));
    world.restart().await;
    assert_eq!(device.until(2).await["notificationType"], "ApplicationContextDeleteNotification");
}

#[tokio::test]
async fn associations_survive_a_restart() {
    let mut world = World::start_with(|config| config.decider = DeciderConfig::Associations).await;
    lcm::associate(&world.role, "", "echo", "10.9.0.2:6473").await;
    world.restart().await;
    let (_, created) = world.role.create(&app_context("echo", None)).await;
    assert_eq!(reference(&created), "http://10.9.0.2:8080/function/echo");
}
