//! What doors keep of functions, over the wire and over both stores.

use nigh_proto::v1::documents_client::DocumentsClient;

use super::nats_server::NatsServer;
use super::*;

fn keeper(controller: &Controller) -> DocumentsClient<Channel> {
    DocumentsClient::new(channel::connect_lazy(&controller.endpoint))
}

fn document(key: &str, revision: u64, content: &str, function: &str) -> v1::PutDocumentRequest {
    let (content, function) = (content.to_owned().into(), function.to_owned());
    v1::PutDocumentRequest { document: Some(v1::Document { key: key.into(), content, revision, function }) }
}

async fn listed(controller: &Controller, known: &str) -> (String, Option<Vec<String>>) {
    let request = v1::ListDocumentsRequest { known: known.to_owned() };
    let told = keeper(controller).list_documents(request).await.unwrap().into_inner();
    let text = |document: v1::Document| format!("{}={}", document.key, String::from_utf8_lossy(&document.content));
    (told.mark, (!told.unchanged).then(|| told.documents.into_iter().map(text).collect()))
}

async fn until_listed(controller: &Controller, expected: &[&str]) {
    let began = std::time::Instant::now();
    loop {
        let (_, told) = listed(controller, "").await;
        if told.as_deref() == Some(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{told:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn conforms(change: impl Fn(&mut Config)) {
    let controller = Controller::start_with(&change).await;
    deploy(&mut controller.client(), "echo", &module(1, 1)).await.unwrap();
    let mut documents = keeper(&controller);
    let first = documents.put_document(document("a", 0, "one", "echo")).await.unwrap().into_inner();
    assert!(first.written && first.revision > 0);
    let (mark, told) = listed(&controller, "").await;
    assert_eq!(told.unwrap(), ["a=one"]);
    assert_eq!(listed(&controller, &mark).await, (mark.clone(), None));
    assert!(!documents.put_document(document("a", 0, "again", "")).await.unwrap().into_inner().written);
    let second = documents.put_document(document("a", first.revision, "two", "echo")).await.unwrap().into_inner();
    assert!(second.written && second.revision > first.revision);
    documents.put_document(document("b", 0, "stays", "")).await.unwrap();
    let folder = controller.stop().await;

    let controller = Controller::start_in(folder, &change).await;
    let mut documents = keeper(&controller);
    // A mark of before the restart stands for nothing.
    assert_eq!(listed(&controller, &mark).await.1.unwrap(), ["a=two", "b=stays"]);
    let large = "x".repeat(nigh_proto::document::DOCUMENT_BYTES_MAX + 1);
    let refused = documents.put_document(document("c", 0, &large, "")).await.unwrap_err();
    assert_eq!(PlatformError::from(refused).reason, Reason::TooLarge);
    controller.client().remove(v1::RemoveRequest { name: "echo".into() }).await.unwrap();
    until_listed(&controller, &["b=stays"]).await;
    documents.remove_document(v1::RemoveDocumentRequest { key: "b".into() }).await.unwrap();
    until_listed(&controller, &[]).await;
    controller.stop().await;
}

#[tokio::test]
async fn documents_are_kept_in_a_file() {
    conforms(|_| {}).await;
}

#[tokio::test]
async fn documents_are_kept_in_nats_and_known_to_all_who_share_it() {
    let Some(server) = NatsServer::start() else { return };
    let place = server.place();
    let shared = |config: &mut Config| {
        config.store = place.clone();
        config.modules_bytes_max = 4 << 20;
    };
    conforms(shared).await;
    let (one, other) = (Controller::start_with(shared).await, Controller::start_with(shared).await);
    keeper(&one).put_document(document("a", 0, "of one", "")).await.unwrap();
    until_listed(&other, &["a=of one"]).await;
    keeper(&other).remove_document(v1::RemoveDocumentRequest { key: "a".into() }).await.unwrap();
    until_listed(&one, &[]).await;
    one.stop().await;
    other.stop().await;
}
