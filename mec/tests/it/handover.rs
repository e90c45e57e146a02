//! A device that moves is sent to where it is best now, and hears of it at once.

use device::{Manner, Receiver};

use super::*;

#[tokio::test]
async fn a_device_that_moves_is_told_its_new_server_where_it_is_now() {
    let folder = TempDir::new().unwrap();
    let rows = folder.path().join("rows");
    std::fs::write(&rows, "127.0.1.0/24 echo 10.9.0.1:6473\n127.0.2.0/24 echo 10.9.0.2:6473\n").unwrap();
    let world = World::start_with(|config| config.decider = DeciderConfig::File { path: rows }).await;
    let (here, there) = ("127.0.1.7".parse().unwrap(), "127.0.2.7".parse().unwrap());
    let (first, second) = (Receiver::start_at(here, Manner::Well).await, Receiver::start_at(there, Manner::Well).await);
    let asked = app_context("echo", Some(&first.callback()));
    let created = device::from(here, world.role.devices, "POST", "/dev_app/v1/app_contexts", Some(&asked)).await;
    assert_eq!(reference(&created.body), "http://10.9.0.1:8080/function/echo");
    let path: http::Uri = created.header("location").parse().unwrap();
    let update = app_context("echo", Some(&second.callback()));
    assert_eq!(device::from(there, world.role.devices, "PUT", path.path(), Some(&update)).await.status, 204);
    assert_eq!(second.until(1).await["referenceURI"], "http://10.9.0.2:8080/function/echo");
    assert!(first.taken().is_empty(), "nothing is sent to where it was");
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_and_one_that_is_none_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let rows = folder.path().join("rows");
    std::fs::write(&rows, "* echo 10.9.0.1:6473\n").unwrap();
    let file = rows.clone();
    let world = World::start_with(|config| config.decider = DeciderConfig::File { path: file }).await;
    let device = Receiver::start(Manner::Well).await;
    world.role.create(&app_context("echo", Some(&device.callback()))).await;
    std::fs::write(&rows, "no association at all\n").unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(device.taken().is_empty());
    std::fs::write(&rows, "* echo 10.9.0.1:6473\n127.0.0.1 echo 10.9.0.2:6473 # this one\n").unwrap();
    assert_eq!(device.until(1).await["referenceURI"], "http://10.9.0.2:8080/function/echo");
}

/// The acceptance case of the older file controller: applications come and go with computers.
#[tokio::test]
async fn with_a_file_applications_come_and_go_with_computers() {
    let folder = TempDir::new().unwrap();
    let rows = folder.path().join("rows");
    std::fs::write(&rows, "* * 10.9.0.1:6473\n").unwrap();
    let world = World::start_knowing(vec![deployed("f0"), deployed("f1"), deployed("f2")], |config| {
        config.decider = DeciderConfig::File { path: rows };
        config.give = nigh_mec::Give::Computers;
    })
    .await;
    let count = async || world.role.listed().await.len();
    assert_eq!(count().await, 0);
    world.controller.change(computer("computer-1", "10.9.0.1:10000", &["f0"]));
    until("one", async || count().await == 1).await;
    world.controller.change(computer("computer-2", "10.9.0.2:10000", &["f1", "f2"]));
    until("three", async || count().await == 3).await;
    world.controller.change(computer_gone("computer-2"));
    until("one again", async || count().await == 1).await;
    world.controller.change(computer_gone("computer-1"));
    until("none", async || count().await == 0).await;
}

#[tokio::test]
async fn devices_are_spread_evenly_and_a_newcomer_gets_its_share_within_a_period() {
    let world =
        World::start_with(|config| config.decider = DeciderConfig::Balanced { period: Duration::from_millis(50) })
            .await;
    let mut receivers = Vec::new();
    for at in 1..=6u8 {
        let own = std::net::IpAddr::from([127, 0, 3, at]);
        let receiver = Receiver::start_at(own, Manner::Well).await;
        let asked = app_context("echo", Some(&receiver.callback()));
        let created = device::from(own, world.role.devices, "POST", "/dev_app/v1/app_contexts", Some(&asked)).await;
        receivers.push((receiver, reference(&created.body).to_owned()));
    }
    let counts = |receivers: &[(Receiver, String)]| {
        let mut counts = std::collections::BTreeMap::new();
        for (receiver, first) in receivers {
            let last = receiver.taken().last().map(|told| told["referenceURI"].as_str().unwrap().to_owned());
            *counts.entry(last.unwrap_or_else(|| first.clone())).or_insert(0) += 1;
        }
        counts.into_values().collect::<Vec<_>>()
    };
    assert_eq!(counts(&receivers), [3, 3]);
    world.controller.change(broker("broker-3", "10.9.0.3:6473", "10.9.0.3:8080"));
    until("all three have two", async || counts(&receivers) == [2, 2, 2]).await;
}
