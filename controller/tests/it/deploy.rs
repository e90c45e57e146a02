//! Deploying, updating, removing, fetching; uploads that are wrong in every way; restarts.

use nigh_controller::{Error, StoreError};
use nigh_proto::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

type Upload = JoinHandle<Result<tonic::Response<v1::DeployResponse>, tonic::Status>>;

#[tokio::test]
async fn functions_are_deployed_updated_listed_fetched_and_removed() {
    let controller = Controller::start().await;
    let mut client = controller.client();
    let (one, two) = (module(1, 700_000), module(2, 10));

    let deployed = deploy(&mut client, "echo", &one).await.unwrap();
    assert!(deployed.changed);
    let first = deployed.deployment.unwrap();
    assert_eq!(first.module, Digest::of(&one).to_string());
    assert_eq!(first.module_bytes, one.len() as u64);
    assert_eq!(first.kind(), v1::ModuleKind::Native);
    let again = deploy(&mut client, "echo", &one).await.unwrap();
    assert_eq!((again.changed, again.deployment), (false, Some(first.clone())));
    assert_eq!(fetch(&mut client, &first.module).await.unwrap(), one);

    let second = deploy(&mut client, "echo", &two).await.unwrap().deployment.unwrap();
    assert_ne!(second.version, first.version);
    deploy(&mut client, "another", &two).await.unwrap();
    let names: Vec<_> = controller.functions().await.into_iter().map(|function| function.name).collect();
    assert_eq!(names, ["another", "echo"]);
    // Nobody uses the first module any more.
    assert_eq!(fetch(&mut client, &first.module).await.unwrap_err().reason, Reason::UnknownFunction);

    client.remove(v1::RemoveRequest { name: "echo".into() }).await.unwrap();
    assert_eq!(fetch(&mut client, &second.module).await.unwrap(), two);
    assert_eq!(reason(client.remove(v1::RemoveRequest { name: "echo".into() }).await), Reason::UnknownFunction);
    assert_eq!(reason(client.remove(v1::RemoveRequest { name: "../echo".into() }).await), Reason::Malformed);
    assert_eq!(fetch(&mut client, "no digest").await.unwrap_err().reason, Reason::Malformed);
    controller.stop().await;
}

#[tokio::test]
async fn uploads_that_are_wrong_are_refused_by_reason_and_change_nothing() {
    let controller = Controller::start_with(|config| {
        config.module_limits.bytes_max = 500_000;
        config.upload_part_bytes_max = 200_000;
    })
    .await;
    let mut client = controller.client();
    let good = module(1, 10);
    let component = Bytes::from(wat::parse_str("(component)").unwrap());
    let importing = wat::parse_str(r#"(module (import "env" "system" (func)) (func (export "_start")))"#).unwrap();
    let small_memory = v1::DeployRequest {
        part: Some(Part::Head(v1::DeployHead {
            name: "f".into(),
            limits: Some(v1::Limits { memory_bytes: 64 << 10, ..Default::default() }),
            ..Default::default()
        })),
    };
    let hosts = v1::DeployRequest {
        part: Some(Part::Head(v1::DeployHead {
            name: "f".into(),
            hosts: vec!["api.example".into()],
            ..Default::default()
        })),
    };
    let odd_host = v1::DeployRequest {
        part: Some(Part::Head(v1::DeployHead {
            name: "f".into(),
            hosts: vec!["https://api.example".into()],
            ..Default::default()
        })),
    };
    let odd_grant = v1::DeployRequest {
        part: Some(Part::Head(v1::DeployHead {
            name: "f".into(),
            directories: vec![v1::DirectoryGrant { name: "data".into(), guest_path: "/../etc".into(), writable: true }],
            ..Default::default()
        })),
    };
    let big = vec![part(vec![0; 150_000]); 4];
    let whole = || part(good.clone());
    let cases: Vec<(&str, Vec<v1::DeployRequest>, Reason, &str)> = vec![
        ("nothing", vec![], Reason::Malformed, "begins with a head"),
        ("no head", vec![whole()], Reason::Malformed, "begins with a head"),
        ("two heads", vec![head("f"), head("f"), whole()], Reason::Malformed, "one head"),
        ("a late head", vec![head("f"), whole(), head("f")], Reason::Malformed, "one head"),
        ("empty", vec![head("f")], Reason::Malformed, "empty"),
        ("an empty part", vec![head("f"), part("")], Reason::Malformed, "empty part"),
        ("no part", vec![head("f"), v1::DeployRequest { part: None }], Reason::Malformed, "empty part"),
        ("not Wasm", vec![head("f"), part("GIF89a")], Reason::Malformed, "not a WebAssembly file"),
        ("truncated", vec![head("f"), part(good.slice(..good.len() - 40))], Reason::Malformed, "truncated"),
        ("a component", vec![head("f"), part(component)], Reason::Malformed, "wasi:http/incoming-handler"),
        ("hosts without http", vec![hosts, whole()], Reason::Malformed, "--allow-host"),
        ("an odd host", vec![odd_host, whole()], Reason::Malformed, "HOST:PORT"),
        ("no import of ours", vec![head("f"), part(importing)], Reason::Malformed, "env::system"),
        ("memory over limit", vec![small_memory, part(module(2, 1))], Reason::Malformed, "--memory"),
        ("a gibibyte", vec![head("f"), part(module(16_384, 1))], Reason::Malformed, "--memory"),
        ("an odd name", vec![head("No/../Such"), whole()], Reason::Malformed, "name"),
        ("an odd grant", vec![odd_grant, whole()], Reason::Malformed, "data"),
        ("over size", [vec![head("f")], big].concat(), Reason::TooLarge, "500000"),
        ("a part over size", vec![head("f"), part(vec![0; 200_001])], Reason::TooLarge, "200000"),
        ("a message over size", vec![head("f"), part(vec![0; 17 << 20])], Reason::TooLarge, ""),
    ];
    for (what, parts, reason, says) in cases {
        let error = upload(&mut client, parts).await.expect_err(what);
        assert_eq!(error.reason, reason, "{what}: {error}");
        assert!(error.message.contains(says), "{what}: {error}");
    }
    assert!(controller.functions().await.is_empty());
    deploy(&mut client, "f", &good).await.unwrap();
    controller.stop().await;
}

/// Begins an upload whose end does not come while the sender is held.
async fn begin_upload(
    controller: &Controller,
    name: &str,
    module: &Bytes,
) -> (Upload, mpsc::Sender<v1::DeployRequest>) {
    let (parts, outgoing) = mpsc::channel(2);
    parts.send(head(name)).await.unwrap();
    parts.send(part(module.clone())).await.unwrap();
    let mut client = controller.client();
    let upload = tokio::spawn(async move { client.deploy(ReceiverStream::new(outgoing)).await });
    while parts.capacity() < parts.max_capacity() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (upload, parts)
}

#[tokio::test]
async fn uploads_that_break_off_or_fall_silent_leave_nothing_and_give_their_place_back() {
    let controller = Controller::start_with(|config| {
        config.uploads_max = 1;
        config.upload_idle = Duration::from_millis(300);
    })
    .await;
    let mut client = controller.client();
    let good = module(1, 10);

    // Whoever comes first has the only place; try until that is the one which will fall silent.
    let (silent, parts, busy) = loop {
        let (silent, parts) = begin_upload(&controller, "silent", &good).await;
        match deploy(&mut client, "other", &good).await {
            Err(busy) => break (silent, parts, busy),
            Ok(_) => silent.abort(),
        }
    };
    assert_eq!(busy.reason, Reason::QueueFull, "{busy}");
    assert!(busy.retry_after.is_some());
    assert_eq!(reason(silent.await.unwrap()), Reason::Late);
    drop(parts);

    let (gone, _parts) = begin_upload(&controller, "gone", &good.slice(..20)).await;
    gone.abort();
    let deployed = async {
        while let Err(error) = deploy(&mut client, "after", &good).await {
            assert_eq!(error.reason, Reason::QueueFull);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, deployed).await.unwrap();
    let names: Vec<_> = controller.functions().await.into_iter().map(|function| function.name).collect();
    assert!(!names.iter().any(|name| name == "silent" || name == "gone"), "{names:?}");
    controller.stop().await;
}

#[tokio::test]
async fn what_is_over_the_stores_limits_is_refused_with_advice() {
    let (one, two) = (module(1, 10), module(2, 10));
    let bytes = one.len() as u64 + 5;
    let controller = Controller::start_with(|config| {
        config.functions_max = 2;
        config.modules_bytes_max = bytes;
    })
    .await;
    let mut client = controller.client();
    deploy(&mut client, "a", &one).await.unwrap();
    let error = deploy(&mut client, "b", &two).await.unwrap_err();
    assert_eq!(error.reason, Reason::OutOfBudget);
    assert!(error.message.contains("nigh rm"), "{error}");
    deploy(&mut client, "b", &one).await.unwrap();
    assert_eq!(deploy(&mut client, "c", &one).await.unwrap_err().reason, Reason::OutOfBudget);
    // In place of another there is room.
    client.remove(v1::RemoveRequest { name: "b".into() }).await.unwrap();
    deploy(&mut client, "a", &two).await.unwrap();
    controller.stop().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_deployed() {
    let controller = Controller::start().await;
    let mut client = controller.client();
    let modules: Vec<_> = (1..4).map(|pages| module(pages, 300_000)).collect();
    for (at, module) in modules.iter().enumerate() {
        deploy(&mut client, &format!("f{at}"), module).await.unwrap();
    }
    client.remove(v1::RemoveRequest { name: "f1".into() }).await.unwrap();
    let before = controller.functions().await;
    let folder = controller.stop().await;

    let controller = Controller::start_in(folder, |_| {}).await;
    assert_eq!(controller.functions().await, before);
    let mut client = controller.client();
    for function in &before {
        let module = fetch(&mut client, &function.module).await.unwrap();
        assert_eq!(Digest::of(&module).to_string(), function.module);
    }
    assert!(!deploy(&mut client, "f0", &modules[0]).await.unwrap().changed);
    controller.stop().await;
}

#[tokio::test]
async fn many_deploy_at_once_and_store_and_registry_agree_afterwards() {
    let controller = Controller::start_with(|config| config.uploads_max = 8).await;
    let modules: Vec<_> = (1..5).map(|pages| module(pages, 10)).collect();
    let mut deployers = tokio::task::JoinSet::new();
    for at in 0..8 {
        let (mut client, modules) = (controller.client(), modules.clone());
        deployers.spawn(async move {
            for round in 0..4 {
                deploy(&mut client, "same", &modules[(at + round) % modules.len()]).await.unwrap();
            }
        });
    }
    tokio::time::timeout(PATIENCE, deployers.join_all()).await.unwrap();
    let before = controller.functions().await;
    let folder = controller.stop().await;
    let controller = Controller::start_in(folder, |_| {}).await;
    assert_eq!(controller.functions().await, before);
    controller.stop().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store"), vec![7; 10_000]).unwrap();
    let controller = Controller::start_in(folder, |_| {}).await;
    let error = tokio::time::timeout(PATIENCE, controller.task).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");

    let running = Controller::start().await;
    running.functions().await;
    let store = running.folder.path().join("store");
    let second = Controller::start_with(|config| config.store = nigh_store::Place::Embedded { file: store }).await;
    let error = tokio::time::timeout(PATIENCE, second.task).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::InUse { .. })), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn a_reader_that_accepts_nothing_learns_that_its_module_is_not_whole() {
    let controller = Controller::start_with(|config| {
        config.fetches_max = 1;
        config.fetch_idle = Duration::from_millis(200);
    })
    .await;
    let mut client = controller.client();
    // More than the connection buffers.
    let large = module(1, 16 << 20);
    let digest = deploy(&mut client, "large", &large).await.unwrap().deployment.unwrap().module;
    let mut slow = client.fetch_module(v1::FetchModuleRequest { digest: digest.clone() }).await.unwrap().into_inner();
    assert_eq!(fetch(&mut client, &digest).await.unwrap_err().reason, Reason::QueueFull);
    // Its place is given to another one, who gets all of it.
    let fetched = async {
        loop {
            match fetch(&mut controller.client(), &digest).await {
                Ok(module) => return module,
                Err(error) => assert_eq!(error.reason, Reason::QueueFull),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, fetched).await.unwrap() == large);
    let end = async {
        loop {
            match slow.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("half a module ended as if it were whole"),
                Err(status) => return PlatformError::from(status),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.unwrap().reason, Reason::Late);
    controller.stop().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_keeps_neither_the_controller_nor_its_file() {
    let controller = Controller::start_with(|config| config.drain = Duration::from_millis(200)).await;
    let good = module(1, 10);
    deploy(&mut controller.client(), "kept", &good).await.unwrap();
    let (hanging, _parts) = begin_upload(&controller, "hanging", &good).await;
    let folder = controller.stop().await;
    let controller = Controller::start_in(folder, |_| {}).await;
    let names: Vec<_> = controller.functions().await.into_iter().map(|function| function.name).collect();
    assert_eq!(names, ["kept"]);
    hanging.abort();
    controller.stop().await;
}
