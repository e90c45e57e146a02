//! What is kept of actions and packages, at the controller; known here as of a second ago at most, so that calls do not wait for
//! it. While the controller is away, what was known stays good.

use std::sync::Arc;

use nigh_proto::{Document, FunctionName, PlatformError, Reason};

use super::failure::Failure;
use super::kept::{Contents, Kept, Of};
use crate::believed::Believed;
use crate::registry::Registry;

/// The shelf on which all that stands.
#[derive(Debug)]
pub(super) struct Shelf {
    registry: Registry,
    contents: Believed<Contents>,
}

impl Shelf {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, contents: Believed::default() }
    }

    /// All that is kept, as of a moment ago.
    ///
    /// # Errors
    /// Where nothing is known yet, and the controller cannot be asked or does not let this door look.
    pub(super) async fn contents(&self) -> Result<Arc<Contents>, PlatformError> {
        self.contents.get(|known| self.look(known)).await
    }

    /// All that is kept, as of now.
    ///
    /// # Errors
    /// Where the controller cannot be asked.
    pub(super) async fn fresh(&self) -> Result<Arc<Contents>, PlatformError> {
        self.contents.fresh(|| self.look(None)).await
    }

    async fn look(&self, known: Option<Arc<Contents>>) -> Result<Arc<Contents>, PlatformError> {
        let mark = known.as_ref().map(|known| known.mark());
        match (self.registry.documents(mark).await.map_err(unread)?, known) {
            (Some(documents), _) => Ok(Arc::new(Contents::of(documents.mark, &documents.all))),
            (None, Some(known)) => Ok(known),
            (None, None) => Err(PlatformError::new(Reason::Protocol, "the controller says that nothing has changed")),
        }
    }

    /// Keeps something in place of what has this revision. What is kept of an action goes with its function, if it has one.
    ///
    /// # Errors
    /// 409 where somebody else was faster.
    pub(super) async fn put(
        &self,
        of: Of,
        name: &FunctionName,
        kept: &Kept,
        revision: u64,
        function: Option<FunctionName>,
    ) -> Result<(), Failure> {
        let content = serde_json::to_vec(kept).unwrap_or_default().into();
        let document = Document { key: of.key(name)?, content, revision, function };
        let written = self.contents.change(self.registry.put_document(&document)).await?;
        if written { Ok(()) } else { Err(Failure::conflict("somebody else has changed it meanwhile; try again")) }
    }

    /// Keeps it no longer.
    pub(super) async fn remove(&self, of: Of, name: &FunctionName) -> Result<(), Failure> {
        Ok(self.contents.change(self.registry.remove_document(&of.key(name)?)).await?)
    }

    /// Removes a function, and what goes with it.
    pub(super) async fn remove_function(&self, name: &FunctionName) -> Result<(), Failure> {
        Ok(self.contents.change(self.registry.remove(name)).await?)
    }
}

fn unread(error: PlatformError) -> PlatformError {
    match error.reason {
        Reason::NotAllowed => {
            let message = format!(
                "this door may not read what is kept of actions, such as their parameters ({}); have it run with the certificate of an operator or a broker",
                error.message
            );
            PlatformError { message, ..error }
        }
        _ => error,
    }
}
