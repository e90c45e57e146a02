//! Documents: what doors for clients of other systems keep of functions, beside what the platform itself has to know of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::name::FunctionName;
use crate::status::{PlatformError, Reason};
use crate::v1;

/// Bytes of a document's content, at most.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Documents that a controller keeps, at most.
pub const DOCUMENTS_MAX: usize = 10_000;
/// Bytes of all of them, at most.
pub const DOCUMENTS_BYTES_MAX: usize = 32 << 20;

/// Names a document: 1 to 128 visible ASCII characters. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey(Arc<str>);

impl DocumentKey {
    const BYTES_MAX: usize = 128;

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DocumentKey {
    type Err = PlatformError;

    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let fits = (1..=Self::BYTES_MAX).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(given.into())).ok_or_else(|| {
            let message = format!("a document's key: use 1 to {} visible ASCII characters", Self::BYTES_MAX);
            PlatformError::malformed(message)
        })
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name.
    pub key: DocumentKey,
    /// What its writers alone understand.
    pub content: Bytes,
    /// Grows with every change; of one to be written, that of the document which it replaces, 0 for none.
    pub revision: u64,
    /// It goes when this function is removed.
    pub function: Option<FunctionName>,
}

impl Document {
    /// Checks a document as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`], or [`Reason::TooLarge`].
    pub fn from_wire(wire: v1::Document) -> Result<Self, PlatformError> {
        if wire.content.len() > DOCUMENT_BYTES_MAX {
            let bytes = wire.content.len();
            let message = format!("a document of {bytes} bytes; at most {DOCUMENT_BYTES_MAX} are kept");
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        Ok(Self {
            key: wire.key.parse()?,
            content: wire.content,
            revision: wire.revision,
            function: match wire.function.as_str() {
                "" => None,
                name => Some(name.parse()?),
            },
        })
    }

    /// The document as its message.
    pub fn to_wire(&self) -> v1::Document {
        v1::Document {
            key: self.key.to_string(),
            content: self.content.clone(),
            revision: self.revision,
            function: self.function.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_what_they_were_on_the_other_side() {
        let document = Document {
            key: "openwhisk/action/acme..math.add".parse().unwrap(),
            content: "{}".into(),
            revision: 7,
            function: Some("acme..math.add".parse().unwrap()),
        };
        assert_eq!(Document::from_wire(document.to_wire()).unwrap(), document);
        let free = Document { function: None, ..document };
        assert_eq!(Document::from_wire(free.to_wire()).unwrap(), free);
        let reason = |wire| Document::from_wire(wire).unwrap_err().reason;
        let large = v1::Document { content: vec![0; DOCUMENT_BYTES_MAX + 1].into(), ..free.to_wire() };
        assert_eq!(reason(large), Reason::TooLarge);
        for key in ["", "a b", "ä", &"x".repeat(129)] {
            assert_eq!(reason(v1::Document { key: key.into(), ..free.to_wire() }), Reason::Malformed, "{key}");
        }
        assert_eq!(reason(v1::Document { function: "A".into(), ..free.to_wire() }), Reason::Malformed);
    }
}
