//! What doors for clients of other systems keep of functions, such as the parameters that an action has stored: documents under
//! keys, each written in place of the one that its writer has seen. They are in a store of their own beside what is deployed, in
//! a file or in NATS, and all in memory here, so that doors may ask often.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::document::{DOCUMENTS_BYTES_MAX, DOCUMENTS_MAX};
use nigh_proto::{Document, DocumentKey, FunctionName, PlatformError, Reason, v1};
use nigh_store::{Bucket, BucketSettings, Change, Entry, Key, Place, Revision};
use parking_lot::Mutex;
use prost::Message as _;

use crate::config::Config;
use crate::error::StoreError;
use crate::store::patiently;

/// The wait before the store is watched anew.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// The documents.
#[derive(Debug)]
pub(crate) struct Documents {
    /// `None` once closed, so that the file is free however long others hold on to the documents.
    bucket: Mutex<Option<Arc<dyn Bucket>>>,
    kept: Mutex<Kept>,
    /// No other process marks what it knows with it.
    nonce: u64,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: BTreeMap<DocumentKey, Document>,
    changes: u64,
}

impl Documents {
    /// Opens what is there, or makes it.
    pub(crate) async fn open(config: &Config) -> Result<Arc<Self>, StoreError> {
        let place = match &config.store {
            Place::Embedded { file } => Place::Embedded { file: beside(file) },
            shared @ Place::Nats { .. } => shared.clone(),
        };
        let settings = || BucketSettings {
            name: "documents".to_owned(),
            expire_after: None,
            bytes_max: 2 * DOCUMENTS_BYTES_MAX as u64,
        };
        let bucket = patiently(|| async { Ok(nigh_store::open(&place).await?.bucket(settings()).await?) }).await?;
        let mut kept = Kept::default();
        for (key, entry) in bucket.list("").await? {
            kept.put(&key, entry);
        }
        Ok(Arc::new(Self { bucket: Mutex::new(Some(bucket)), kept: Mutex::new(kept), nonce: rand::random() }))
    }

    fn bucket(&self) -> Result<Arc<dyn Bucket>, StoreError> {
        self.bucket.lock().clone().ok_or(StoreError::Closed)
    }

    /// Lets go of the store.
    pub(crate) fn close(&self) {
        *self.bucket.lock() = None;
    }

    /// The mark of all that there are, and all of them unless the asker knows this mark.
    pub(crate) fn list(&self, known: &str) -> (String, Option<Vec<Document>>) {
        let kept = self.kept.lock();
        let mark = format!("{:016x}-{}", self.nonce, kept.changes);
        let all = (mark != known).then(|| kept.by_key.values().cloned().collect());
        (mark, all)
    }

    /// Writes a document in place of the one whose revision it has, or of none; its revision now, or nothing where there is
    /// another one by now.
    pub(crate) async fn put(&self, document: Document) -> Result<Option<u64>, PlatformError> {
        self.check_room(&document)?;
        let key = key_of(&document.key)?;
        let record = Bytes::from(document.to_wire().encode_to_vec());
        let written = match document.revision {
            0 => self.bucket()?.create(&key, record.clone()).await,
            revision => self.bucket()?.update(&key, record.clone(), Revision(revision)).await,
        };
        match written {
            Ok(revision) => {
                self.kept.lock().put(&key, Entry { value: record, revision });
                Ok(Some(revision.0))
            }
            Err(nigh_store::StoreError::Conflict) => Ok(None),
            Err(error) => Err(StoreError::from(error).into()),
        }
    }

    /// Removes a document, if there is one.
    pub(crate) async fn remove(&self, key: &DocumentKey) -> Result<(), PlatformError> {
        self.bucket()?.delete(&key_of(key)?, None).await.map_err(StoreError::from)?;
        self.kept.lock().delete(key);
        Ok(())
    }

    /// Removes what goes with a function.
    pub(crate) async fn forget(&self, function: &FunctionName) {
        let of_function = |document: &&Document| document.function.as_ref() == Some(function);
        let keys: Vec<_> =
            self.kept.lock().by_key.values().filter(of_function).map(|document| document.key.clone()).collect();
        for key in keys {
            if let Err(error) = self.remove(&key).await {
                tracing::warn!(%key, %function, %error, "what was kept of a function that is gone stays");
            }
        }
    }

    fn check_room(&self, document: &Document) -> Result<(), PlatformError> {
        let kept = self.kept.lock();
        let bytes_of = |document: &Document| document.content.len();
        let before = kept.by_key.get(&document.key);
        let number = kept.by_key.len() + usize::from(before.is_none());
        let bytes: usize = kept.by_key.values().map(bytes_of).sum();
        let bytes = bytes - before.map_or(0, bytes_of) + bytes_of(document);
        if number <= DOCUMENTS_MAX && bytes <= DOCUMENTS_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "with this one doors would keep {number} documents of {bytes} bytes; the limits are {DOCUMENTS_MAX} and {DOCUMENTS_BYTES_MAX}; delete actions or packages that are no longer used"
        );
        Err(PlatformError::new(Reason::OutOfBudget, message))
    }

    /// Keeps in step with what other controllers write; goes on with what is known while the store is away.
    pub(crate) async fn follow(&self) {
        loop {
            if let Err(error) = self.follow_once().await {
                tracing::warn!(%error, "not in step with the documents in the store, going on with what is known");
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    async fn follow_once(&self) -> Result<(), StoreError> {
        let mut watch = self.bucket()?.watch("").await?;
        // Of those removed meanwhile a new watch says nothing.
        let mut unmentioned: BTreeSet<DocumentKey> = self.kept.lock().by_key.keys().cloned().collect();
        while let Some(change) = watch.next().await {
            let mut kept = self.kept.lock();
            match change? {
                Change::Put(key, entry) => {
                    if let Ok(key) = key.as_str().parse() {
                        unmentioned.remove(&key);
                    }
                    kept.put(&key, entry);
                }
                Change::Deleted(key) => {
                    if let Ok(key) = key.as_str().parse() {
                        kept.delete(&key);
                    }
                }
                Change::InStep => std::mem::take(&mut unmentioned).iter().for_each(|key| kept.delete(key)),
            }
        }
        Ok(())
    }
}

impl Kept {
    /// Takes note of what is in the store; what is older than what is known changes nothing.
    fn put(&mut self, key: &Key, entry: Entry) {
        let read = v1::Document::decode(entry.value).map_err(|error| error.to_string());
        let read = read.and_then(|wire| Document::from_wire(wire).map_err(|error| error.to_string()));
        let document = match read {
            Ok(document) => Document { revision: entry.revision.0, ..document },
            Err(error) => return tracing::error!(%key, error, "a document is passed over"),
        };
        if self.by_key.get(&document.key).is_none_or(|known| known.revision < document.revision) {
            self.by_key.insert(document.key.clone(), document);
            self.changes += 1;
        }
    }

    fn delete(&mut self, key: &DocumentKey) {
        self.changes += u64::from(self.by_key.remove(key).is_some());
    }
}

/// The file beside the one of what is deployed.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push("-documents");
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

fn key_of(key: &DocumentKey) -> Result<Key, StoreError> {
    Ok(key.as_str().parse::<Key>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(key: &str, revision: u64, content: &'static str) -> Document {
        let function = Some("echo".parse().unwrap());
        Document { key: key.parse().unwrap(), content: content.into(), revision, function }
    }

    async fn open(folder: &Path) -> Arc<Documents> {
        Documents::open(&Config::new(folder.join("store.redb"))).await.unwrap()
    }

    #[tokio::test]
    async fn a_document_is_written_in_place_of_the_one_seen_and_outlasts_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let documents = open(folder.path()).await;
        let first = documents.put(document("a", 0, "one")).await.unwrap().unwrap();
        assert_eq!(documents.put(document("a", 0, "two")).await.unwrap(), None, "there is one already");
        let second = documents.put(document("a", first, "two")).await.unwrap().unwrap();
        assert!(second > first);
        assert_eq!(documents.put(document("a", first, "late")).await.unwrap(), None, "somebody was faster");
        assert_eq!(documents.put(document("b", 9, "x")).await.unwrap(), None, "there is none");
        drop(documents);
        let documents = open(folder.path()).await;
        assert_eq!(documents.list("").1.unwrap(), [document("a", second, "two")]);
    }

    #[tokio::test]
    async fn whoever_knows_the_mark_is_told_nothing_and_a_function_takes_its_documents_along() {
        let folder = tempfile::tempdir().unwrap();
        let documents = open(folder.path()).await;
        let (empty, all) = documents.list("");
        assert_eq!(all, Some(Vec::new()));
        assert_eq!(documents.list(&empty), (empty.clone(), None));
        documents.put(document("a", 0, "of echo")).await.unwrap();
        documents.put(Document { function: None, ..document("b", 0, "of nobody") }).await.unwrap();
        assert_eq!(documents.list(&empty).1.unwrap().len(), 2);
        documents.forget(&"echo".parse().unwrap()).await;
        let left = documents.list(&empty).1.unwrap();
        assert_eq!(left.iter().map(|document| document.key.as_str()).collect::<Vec<_>>(), ["b"]);
        documents.remove(&"b".parse().unwrap()).await.unwrap();
        documents.remove(&"b".parse().unwrap()).await.unwrap();
        assert_eq!(documents.list("").1, Some(Vec::new()));
    }

    #[tokio::test]
    async fn what_another_writes_is_known_once_it_is_in_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let documents = open(folder.path()).await;
        let following = documents.clone();
        let following = tokio::spawn(async move { following.follow().await });
        let record = |content: &'static str| document("a", 0, content).to_wire().encode_to_vec().into();
        documents.bucket().unwrap().put(&"a".parse().unwrap(), record("elsewhere")).await.unwrap();
        let until = async |is_so: &dyn Fn(Vec<Document>) -> bool| {
            let looking = async {
                while !is_so(documents.list("").1.unwrap()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap();
        };
        until(&|all| all.len() == 1 && all[0].content == "elsewhere").await;
        documents.bucket().unwrap().delete(&"a".parse().unwrap(), None).await.unwrap();
        until(&|all| all.is_empty()).await;
        following.abort();
    }

    #[test]
    fn the_file_is_beside_the_other() {
        assert_eq!(beside(Path::new("/data/controller.redb")), Path::new("/data/controller-documents.redb"));
        assert_eq!(beside(Path::new("store")), Path::new("store-documents"));
    }
}
