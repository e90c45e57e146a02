//! The door to what doors keep of functions: `nigh.v1.Documents`.

use std::sync::Arc;

use nigh_proto::document::{DOCUMENTS_BYTES_MAX, DOCUMENTS_MAX};
use nigh_proto::v1::documents_server::{Documents, DocumentsServer};
use nigh_proto::{Document, DocumentKey, PlatformError, channel, v1};
use tonic::{Request, Response, Status};

use crate::documents;

/// Bytes of a document beside its content, at most.
const BYTES_BESIDE: usize = 512;

/// The documents, as doors ask for them.
pub(super) struct Door(Arc<documents::Documents>);

impl Door {
    pub(super) fn service(documents: Arc<documents::Documents>) -> DocumentsServer<Self> {
        let listed_max = DOCUMENTS_BYTES_MAX + DOCUMENTS_MAX * BYTES_BESIDE;
        DocumentsServer::new(Self(documents)).max_encoding_message_size(channel::message_bytes_max(listed_max))
    }
}

#[tonic::async_trait]
impl Documents for Door {
    async fn put_document(
        &self,
        request: Request<v1::PutDocumentRequest>,
    ) -> Result<Response<v1::PutDocumentResponse>, Status> {
        let document = request.into_inner().document.ok_or_else(|| PlatformError::malformed("no document is given"))?;
        let revision = self.0.put(Document::from_wire(document)?).await?;
        let written = revision.is_some();
        Ok(Response::new(v1::PutDocumentResponse { written, revision: revision.unwrap_or_default() }))
    }

    async fn remove_document(
        &self,
        request: Request<v1::RemoveDocumentRequest>,
    ) -> Result<Response<v1::RemoveDocumentResponse>, Status> {
        let key: DocumentKey = request.into_inner().key.parse()?;
        self.0.remove(&key).await?;
        Ok(Response::new(v1::RemoveDocumentResponse {}))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::ListDocumentsResponse>, Status> {
        let (mark, all) = self.0.list(&request.into_inner().known);
        let unchanged = all.is_none();
        let documents = all.unwrap_or_default().iter().map(Document::to_wire).collect();
        Ok(Response::new(v1::ListDocumentsResponse { mark, unchanged, documents }))
    }
}
