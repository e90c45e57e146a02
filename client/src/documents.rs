//! What doors keep of functions, at the controller.

use std::sync::Arc;

use nigh_proto::document::{DOCUMENT_BYTES_MAX, DOCUMENTS_BYTES_MAX, DOCUMENTS_MAX};
use nigh_proto::v1::documents_client::DocumentsClient;
use nigh_proto::{Document, DocumentKey, PlatformError, channel, v1};
use tonic::transport::Channel;

use crate::admin::Admin;

/// Bytes of a document beside its content, at most.
const BYTES_BESIDE: usize = 512;

/// All documents, as of a moment.
#[derive(Debug, Clone)]
pub struct Documents {
    /// Stands for them.
    pub mark: Arc<str>,
    /// By key.
    pub all: Vec<Document>,
}

impl Admin {
    /// All documents; nothing where they are still those that this mark stands for.
    ///
    /// # Errors
    /// [`PlatformError`] where the controller cannot be reached, or does not let this client read them.
    pub async fn documents(&self, known: Option<&str>) -> Result<Option<Documents>, PlatformError> {
        let request = v1::ListDocumentsRequest { known: known.unwrap_or_default().to_owned() };
        let listed = self.peer().request(self.keeper().list_documents(request)).await?;
        if listed.unchanged {
            return Ok(None);
        }
        let all = listed.documents.into_iter().map(Document::from_wire).collect::<Result<_, _>>()?;
        Ok(Some(Documents { mark: listed.mark.into(), all }))
    }

    /// Writes a document in place of the one whose revision it has, or of none; its revision now, or nothing where there is
    /// another one by now.
    ///
    /// # Errors
    /// [`PlatformError`]: refused, or the controller cannot be reached.
    pub async fn put_document(&self, document: &Document) -> Result<Option<u64>, PlatformError> {
        let request = v1::PutDocumentRequest { document: Some(document.to_wire()) };
        let v1::PutDocumentResponse { written, revision } =
            self.peer().request(self.keeper().put_document(request)).await?;
        Ok(written.then_some(revision))
    }

    /// Removes a document, if there is one.
    ///
    /// # Errors
    /// As [`Admin::put_document`].
    pub async fn remove_document(&self, key: &DocumentKey) -> Result<(), PlatformError> {
        let request = v1::RemoveDocumentRequest { key: key.to_string() };
        let v1::RemoveDocumentResponse {} = self.peer().request(self.keeper().remove_document(request)).await?;
        Ok(())
    }

    fn keeper(&self) -> DocumentsClient<Channel> {
        let listed_max = DOCUMENTS_BYTES_MAX + DOCUMENTS_MAX * BYTES_BESIDE;
        DocumentsClient::new(self.peer().channel())
            .max_encoding_message_size(channel::message_bytes_max(DOCUMENT_BYTES_MAX + BYTES_BESIDE))
            .max_decoding_message_size(channel::message_bytes_max(listed_max))
    }
}
