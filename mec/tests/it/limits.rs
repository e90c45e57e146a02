//! What is taken is bounded, of all and of one device, and where a device is is not believed from anybody.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::*;

const CONTEXTS: &str = "/dev_app/v1/app_contexts";

#[tokio::test]
async fn contexts_are_limited_of_all_and_of_one_device() {
    let world = World::start_with(|config| {
        config.contexts_max = 5;
        config.contexts_per_device_max = 3;
    })
    .await;
    let ask = async |own: [u8; 4]| {
        device::from(own.into(), world.role.devices, "POST", CONTEXTS, Some(&app_context("echo", None))).await
    };
    for _ in 0..3 {
        assert_eq!(ask([127, 0, 0, 1]).await.status, 201);
    }
    let refused = ask([127, 0, 0, 1]).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body["detail"].as_str().unwrap().contains("3 contexts are of this device"), "{refused:?}");
    assert_eq!((ask([127, 0, 0, 2]).await.status, ask([127, 0, 0, 2]).await.status), (201, 201));
    let refused = ask([127, 0, 0, 3]).await;
    assert!(
        refused.status == 403 && refused.body["detail"].as_str().unwrap().contains("5 contexts are there"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_deleted_context_makes_room() {
    let world = World::start_with(|config| config.contexts_max = 1).await;
    for _ in 0..3 {
        let (path, _) = world.role.create(&app_context("echo", None)).await;
        assert_eq!(world.role.delete(&path).await.status, 204);
    }
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_is_given_up() {
    let world = World::start_with(|config| config.request_timeout = Duration::from_millis(100)).await;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(world.role.devices).await.unwrap();
    let head = format!(
        "POST {CONTEXTS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn where_a_device_is_is_believed_from_named_proxies_only() {
    let ask = async |world: &World, callback: &str| {
        let body = app_context("echo", Some(callback)).to_string();
        let request = Request::post(CONTEXTS)
            .header("content-type", "application/json; charset=utf-8")
            .header("x-forwarded-for", "127.0.4.7")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        device::send("127.0.0.1".parse().unwrap(), world.role.devices, request).await.status
    };
    let believing = World::start_with(|config| config.proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    assert_eq!(ask(&believing, "http://127.0.4.7:9/").await, 201);
    assert_eq!(lcm::whereabouts(&believing.role).await[0].address, "127.0.4.7");
    let doubting = World::start().await;
    assert_eq!(ask(&doubting, "http://127.0.4.7:9/").await, 403);
    assert_eq!(ask(&doubting, "http://127.0.0.1:9/").await, 403, "what was passed on is not at that address");
}
