//! States of http functions, by `wasi:keyvalue`: a component made by another toolchain's bindings, unmodified.

use nigh_tests::edge::Edge;
use nigh_tests::guests;

use super::{deploy, get};

#[tokio::test(flavor = "multi_thread")]
async fn http_functions_keep_keys_and_values_in_their_states() {
    let edge = Edge::start(2).await;
    deploy(&edge.admin, "keys", guests::built("keys"), &["cart", "visits"], &[]).await;
    let keep = async |query: &str| get(&edge.http(), &format!("/function/keys/keep?{query}")).await;
    edge.until("the broker knows the function", async || keep("cart:keys").await.0 == 200).await;
    assert_eq!(keep("cart:set:fruit:apple&cart:get:fruit&cart:get:nuts").await, (200, "apple nothing".into()));
    // Another call, perhaps at the other computer.
    for count in 1..=6 {
        assert_eq!(keep("visits:increment:all:1").await, (200, count.to_string()));
    }
    assert_eq!(keep("cart:get:fruit&cart:exists:fruit&cart:exists:nuts").await, (200, "apple true false".into()));
    assert_eq!(keep("cart:set-many:a:b&cart:get-many:a:x&cart:keys").await, (200, "1 nothing a,b,fruit".into()));
    assert_eq!(keep("cart:delete-many:a:b&cart:delete:fruit&cart:keys").await, (200, String::new()));
    // What fails writes nothing.
    let (status, _) = get(&edge.http(), "/function/keys/keep-and-trap?visits:increment:all:10").await;
    assert!(status >= 500, "{status}");
    assert_eq!(keep("visits:get:all").await, (200, "6".into()));
    let (status, told) = keep("other:get:x").await;
    assert!(status == 500 && told.contains("AccessDenied"), "{told}");
    let (status, told) = keep("cart:fill:x:200").await;
    assert!(status == 500 && told.contains("too many"), "{told}");
    assert_eq!(keep("cart:set:x:abc&cart:increment:x:1").await.0, 500);
    assert_eq!(keep("cart:keys").await, (200, "x".into()), "it answered all the same, so that was written");
    edge.stop().await;
}
