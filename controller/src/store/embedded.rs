//! One redb file with what is deployed, the modules by digest, and the nodes last known. Everything here blocks its thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nigh_proto::membership::Node;
use nigh_proto::{Deployment, Digest, FunctionName, NodeName, v1};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use prost::Message as _;
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    StorageError, TableDefinition, WriteTransaction,
};

use super::{Caps, Known, PART_BYTES};
use crate::error::{DeployError, StoreError};
use crate::states::{Claimed, Holder};

/// The version of the tables below; raised with every change that older releases could not read.
const SCHEMA: u64 = 1;
const SCHEMA_KEY: &str = "schema";
/// Memory for pages read before.
const CACHE_BYTES: usize = 32 << 20;

/// Facts about the file itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Function's name → `v1.Deployment`.
const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");
/// Module's digest → its bytes, and the number of functions that use it (never 0).
const MODULES: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("modules");
/// Module's digest and part's number → the part.
const PARTS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("parts");
/// Node's name → `v1.AnnounceRequest`, as announced last.
const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");
/// `application/state` → `v1.StateHolder`.
const STATES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("states");

/// An open file.
pub(crate) struct Embedded {
    /// `None` once closed, so that the file is free however long others hold on to the store.
    database: RwLock<Option<Database>>,
    path: PathBuf,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the file, or makes it, and checks all of it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            // Slower by one reading of the file, and a damage shows now instead of as a crash some day.
            .set_check_integrity_on_open(true)
            .create(path)
            .map_err(|error| open_error(path, error))?;
        let store = Self { database: RwLock::new(Some(database)), path: path.to_owned() };
        store.check_schema()?;
        Ok(store)
    }

    /// Everything but the modules.
    pub(crate) fn load(&self) -> Result<Known, StoreError> {
        let transaction = self.database()?.begin_read()?;
        let mut functions = Vec::new();
        for record in transaction.open_table(FUNCTIONS)?.iter()? {
            let (name, bytes) = record?;
            let function = v1::Deployment::decode(bytes.value())
                .map_err(|error| error.to_string())
                .and_then(|wire| Deployment::from_wire(wire).map_err(|error| error.to_string()))
                .map_err(|error| self.damaged(format!("function {}: {error}", name.value())))?;
            functions.push(function);
        }
        let mut nodes = Vec::new();
        for record in transaction.open_table(NODES)?.iter()? {
            let (name, bytes) = record?;
            let node = v1::AnnounceRequest::decode(bytes.value())
                .map_err(|error| error.to_string())
                .and_then(|wire| Node::from_wire(wire).map_err(|error| error.to_string()));
            match node {
                Ok(node) => nodes.push(node),
                // It will announce itself again; no reason not to start.
                Err(error) => tracing::warn!(name = name.value(), error, "forgot a node that was known before"),
            }
        }
        Ok(Known { functions, nodes })
    }

    /// Puts a function and its module in, all or nothing; false where the very same version was there already.
    pub(crate) fn deploy(&self, function: &Deployment, module: &[u8], caps: Caps) -> Result<bool, DeployError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        let before = {
            let mut functions = transaction.open_table(FUNCTIONS)?;
            let before = match functions.get(function.name.as_str())? {
                Some(bytes) => Some(self.module_of(&function.name, bytes.value())?),
                None => None,
            };
            if before.as_ref().is_some_and(|before| before.version == function.version.to_string()) {
                return Ok(false);
            }
            if before.is_none() && functions.len()? >= caps.functions_max as u64 {
                return Err(DeployError::FunctionsFull(caps.functions_max));
            }
            functions.insert(function.name.as_str(), function.to_wire().encode_to_vec().as_slice())?;
            before
        };
        // Kept before the old one is let go: where both are the same, it must not be deleted in between.
        keep_module(&transaction, &function.module.to_string(), module)?;
        if let Some(before) = before {
            release_module(&transaction, &before.module)?;
        }
        check_modules(&transaction, caps.modules_bytes_max)?;
        transaction.commit()?;
        Ok(true)
    }

    /// Takes a function out, and its module if no other function uses it; false where there was none of this name.
    pub(crate) fn remove(&self, name: &FunctionName) -> Result<bool, DeployError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        let module = {
            let mut functions = transaction.open_table(FUNCTIONS)?;
            let Some(bytes) = functions.remove(name.as_str())? else { return Ok(false) };
            self.module_of(name, bytes.value())?.module
        };
        release_module(&transaction, &module)?;
        transaction.commit()?;
        Ok(true)
    }

    /// Writes the records of nodes; `None` deletes one.
    pub(crate) fn save_nodes(&self, changed: &[(NodeName, Option<Node>)]) -> Result<(), StoreError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        {
            let mut nodes = transaction.open_table(NODES)?;
            for (name, node) in changed {
                match node {
                    Some(node) => drop(nodes.insert(name.as_str(), node.to_wire().encode_to_vec().as_slice())?),
                    None => drop(nodes.remove(name.as_str())?),
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// Begins to read a module; what is read is whole even where the module is dropped meanwhile.
    pub(crate) fn module(&self, digest: &Digest) -> Result<Option<ModuleReader>, StoreError> {
        let digest = digest.to_string();
        let transaction = self.database()?.begin_read()?;
        if transaction.open_table(MODULES)?.get(digest.as_str())?.is_none() {
            return Ok(None);
        }
        Ok(Some(ModuleReader { parts: transaction.open_table(PARTS)?, digest, next: 0 }))
    }

    /// Who holds a state.
    pub(crate) fn holder(&self, id: &str) -> Result<Option<Holder>, StoreError> {
        let transaction = self.database()?.begin_read()?;
        let found = transaction.open_table(STATES)?.get(id)?;
        found.map(|record| self.holder_of(id, record.value())).transpose()
    }

    /// Writes who holds a state, where it is held as of the epoch before (before the first: by nobody), or by just this one.
    pub(crate) fn claim(&self, id: &str, holder: &Holder, states_max: usize) -> Result<Claimed, StoreError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        {
            let mut states = transaction.open_table(STATES)?;
            let found = match states.get(id)? {
                Some(record) => Some(self.holder_of(id, record.value())?),
                None => None,
            };
            let (epoch, is_new) = (found.as_ref().map_or(0, |found| found.epoch), found.is_none());
            if found.as_ref().is_some_and(|found| found.epoch == holder.epoch && found.name == holder.name) {
                return Ok(Claimed::Yes);
            }
            if epoch.checked_add(1) != Some(holder.epoch) {
                return Ok(Claimed::No(found));
            }
            if is_new && states.len()? >= states_max as u64 {
                return Ok(Claimed::Full);
            }
            states.insert(id, holder.to_wire().encode_to_vec().as_slice())?;
        }
        transaction.commit()?;
        Ok(Claimed::Yes)
    }

    /// Takes out who holds a state, if it is this one.
    pub(crate) fn forget(&self, id: &str, name: &NodeName) -> Result<(), StoreError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        {
            let mut states = transaction.open_table(STATES)?;
            let is_meant = match states.get(id)? {
                Some(record) => self.holder_of(id, record.value())?.name == *name,
                None => false,
            };
            if is_meant {
                states.remove(id)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn holder_of(&self, id: &str, record: &[u8]) -> Result<Holder, StoreError> {
        let holder = v1::StateHolder::decode(record)
            .map_err(|error| error.to_string())
            .and_then(|wire| Holder::from_wire(&wire).map_err(|error| error.to_string()));
        holder.map_err(|error| self.damaged(format!("state {id}: {error}")))
    }

    /// Waits for what is under way and frees the file.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        match self.database.write().take().map(Database::close) {
            Some(Err(error)) => Err(StoreError::Failed(error.to_string())),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn database(&self) -> Result<MappedRwLockReadGuard<'_, Database>, StoreError> {
        RwLockReadGuard::try_map(self.database.read(), Option::as_ref).map_err(|_| StoreError::Closed)
    }

    /// Makes the tables of a new file; refuses one with other tables.
    fn check_schema(&self) -> Result<(), StoreError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        let is_new = transaction.list_tables()?.next().is_none();
        {
            let mut meta = transaction.open_table(META).map_err(|error| self.damaged(error))?;
            let found = meta.get(SCHEMA_KEY)?.map(|found| found.value());
            match found {
                Some(SCHEMA) => {}
                Some(found) => return Err(StoreError::Version { path: self.path.clone(), found, known: SCHEMA }),
                None if is_new => drop(meta.insert(SCHEMA_KEY, SCHEMA)?),
                None => return Err(self.damaged("it holds other data")),
            }
        }
        transaction.open_table(FUNCTIONS).map_err(|error| self.damaged(error))?;
        transaction.open_table(MODULES).map_err(|error| self.damaged(error))?;
        transaction.open_table(PARTS).map_err(|error| self.damaged(error))?;
        transaction.open_table(NODES).map_err(|error| self.damaged(error))?;
        transaction.open_table(STATES).map_err(|error| self.damaged(error))?;
        Ok(transaction.commit()?)
    }

    /// Which version a function's record tells of, and which module it uses.
    fn module_of(&self, name: &FunctionName, record: &[u8]) -> Result<v1::Deployment, StoreError> {
        v1::Deployment::decode(record).map_err(|error| self.damaged(format!("function {name}: {error}")))
    }

    fn damaged(&self, detail: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), detail: detail.to_string() }
    }
}

/// Reads one module, part by part.
pub(crate) struct ModuleReader {
    parts: ReadOnlyTable<(&'static str, u32), &'static [u8]>,
    digest: String,
    next: u32,
}

impl ModuleReader {
    /// The next part; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let part = self.parts.get((self.digest.as_str(), self.next))?;
        self.next += 1;
        Ok(part.map(|part| Bytes::copy_from_slice(part.value())))
    }
}

/// Opens a store off the async workers, and reads all but its modules.
pub(crate) async fn open(path: &Path) -> Result<(Arc<Embedded>, Known), StoreError> {
    let owned = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let store = Embedded::open(&owned)?;
        let known = store.load()?;
        Ok((Arc::new(store), known))
    });
    opened.await.unwrap_or_else(|error| {
        Err(StoreError::Damaged { path: path.to_owned(), detail: format!("reading it did not end: {error}") })
    })
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Open { path, error }
        }
        error => StoreError::Damaged { path, detail: error.to_string() },
    }
}

/// Counts one more user of a module, and stores it if that is the first.
fn keep_module(transaction: &WriteTransaction, digest: &str, module: &[u8]) -> Result<(), StoreError> {
    let mut modules = transaction.open_table(MODULES)?;
    let known = modules.get(digest)?.map(|known| known.value());
    let (bytes, users) = known.unwrap_or((module.len() as u64, 0));
    modules.insert(digest, (bytes, users + 1))?;
    if known.is_none() {
        let mut parts = transaction.open_table(PARTS)?;
        for (at, part) in (0u32..).zip(module.chunks(PART_BYTES)) {
            parts.insert((digest, at), part)?;
        }
    }
    Ok(())
}

/// Counts one user of a module less, and deletes it if that was the last.
fn release_module(transaction: &WriteTransaction, digest: &str) -> Result<(), StoreError> {
    let mut modules = transaction.open_table(MODULES)?;
    let known = modules.get(digest)?.map(|known| known.value());
    match known {
        Some((bytes, users)) if users > 1 => drop(modules.insert(digest, (bytes, users - 1))?),
        Some(_) => {
            modules.remove(digest)?;
            transaction.open_table(PARTS)?.retain_in((digest, 0)..=(digest, u32::MAX), |_, _| false)?;
        }
        None => {}
    }
    Ok(())
}

fn check_modules(transaction: &WriteTransaction, limit: u64) -> Result<(), DeployError> {
    let mut bytes: u64 = 0;
    for record in transaction.open_table(MODULES)?.iter()? {
        bytes = bytes.saturating_add(record?.1.value().0);
    }
    if bytes > limit { Err(DeployError::ModulesFull { bytes, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Kind, Limits};
    use proptest::prelude::*;

    use super::*;

    const CAPS: Caps = Caps { functions_max: 3, modules_bytes_max: 1 << 20 };

    fn function(name: &str, module: &[u8], reuse: u32) -> Deployment {
        let limits = Limits { reuse, ..Limits::default() };
        let digest = Digest::of(module);
        Deployment::new(name.parse().unwrap(), digest, module.len() as u64, Kind::Native, limits, Vec::new())
    }

    fn read(store: &Embedded, module: &[u8]) -> Option<Vec<u8>> {
        let mut reader = store.module(&Digest::of(module)).unwrap()?;
        let mut read = Vec::new();
        while let Some(part) = reader.next().unwrap() {
            assert!(part.len() <= PART_BYTES);
            read.extend_from_slice(&part);
        }
        Some(read)
    }

    fn parts(store: &Embedded) -> u64 {
        store.database().unwrap().begin_read().unwrap().open_table(PARTS).unwrap().len().unwrap()
    }

    #[test]
    fn a_module_lives_as_long_as_some_function_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&folder.path().join("store")).unwrap();
        let (one, two) = (vec![1; PART_BYTES * 2 + 1], vec![2; 10]);
        assert!(store.deploy(&function("a", &one, 1), &one, CAPS).unwrap());
        assert!(!store.deploy(&function("a", &one, 1), &one, CAPS).unwrap());
        assert!(store.deploy(&function("b", &one, 1), &one, CAPS).unwrap());
        // Other limits, the same module.
        assert!(store.deploy(&function("a", &one, 2), &one, CAPS).unwrap());
        assert_eq!(parts(&store), 3);
        assert!(store.deploy(&function("a", &two, 1), &two, CAPS).unwrap());
        assert_eq!(read(&store, &one), Some(one.clone()));
        let mut reader = store.module(&Digest::of(&one)).unwrap().unwrap();
        assert!(store.remove(&"b".parse().unwrap()).unwrap());
        assert!(!store.remove(&"b".parse().unwrap()).unwrap());
        assert_eq!(read(&store, &one), None);
        assert_eq!(parts(&store), 1);
        // Who began to read it before still gets all of it.
        assert_eq!(reader.next().unwrap().map(|part| part.len()), Some(PART_BYTES));
        assert!(store.remove(&"a".parse().unwrap()).unwrap());
        assert_eq!(parts(&store), 0);
    }

    #[test]
    fn what_is_over_a_cap_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&folder.path().join("store")).unwrap();
        let half = |fill: u8| vec![fill; 512 << 10];
        store.deploy(&function("a", &half(1), 1), &half(1), CAPS).unwrap();
        store.deploy(&function("b", &half(2), 1), &half(2), CAPS).unwrap();
        let third = half(3);
        let full = store.deploy(&function("c", &third, 1), &third, CAPS).unwrap_err();
        assert!(matches!(full, DeployError::ModulesFull { limit: 1_048_576, .. }), "{full}");
        assert_eq!(read(&store, &third), None);
        // In place of another, the same module fits.
        store.deploy(&function("b", &third, 1), &third, CAPS).unwrap();
        store.deploy(&function("c", &third, 1), &third, CAPS).unwrap();
        let full = store.deploy(&function("d", &third, 1), &third, CAPS).unwrap_err();
        assert!(matches!(full, DeployError::FunctionsFull(3)), "{full}");
        assert_eq!(store.load().unwrap().functions.len(), 3);
    }

    #[test]
    fn a_closed_store_frees_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Embedded::open(&path).unwrap();
        assert!(matches!(Embedded::open(&path), Err(StoreError::InUse { .. })));
        store.close().unwrap();
        assert!(matches!(store.load(), Err(StoreError::Closed)));
        Embedded::open(&path).unwrap();
    }

    #[test]
    fn files_that_are_no_store_of_this_release_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        std::fs::write(&path, "not a store at all").unwrap();
        assert!(matches!(Embedded::open(&path), Err(StoreError::Damaged { .. })));
        let missing = folder.path().join("missing").join("store");
        assert!(matches!(Embedded::open(&missing), Err(StoreError::Open { .. })));

        let foreign = folder.path().join("foreign");
        let write = |path: &Path, table: TableDefinition<'_, &str, u64>, key: &str, value: u64| {
            let database = Database::create(path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(table).unwrap().insert(key, value).unwrap();
            transaction.commit().unwrap();
        };
        write(&foreign, TableDefinition::new("accounts"), "a", 1);
        assert!(matches!(Embedded::open(&foreign), Err(StoreError::Damaged { .. })));
        let newer = folder.path().join("newer");
        write(&newer, META, SCHEMA_KEY, SCHEMA + 1);
        assert!(matches!(Embedded::open(&newer), Err(StoreError::Version { found: 2, known: 1, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A damaged file is refused or still tells the truth; nothing in between, and the process goes on.
        #[test]
        fn a_damaged_file_is_refused_or_whole(at in any::<prop::sample::Index>(), bytes in 1..200usize, cut: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store");
            let store = Embedded::open(&path).unwrap();
            let deployed = function("a", b"module", 1);
            store.deploy(&deployed, b"module", CAPS).unwrap();
            store.close().unwrap();
            let mut file = std::fs::read(&path).unwrap();
            let at = at.index(file.len());
            if cut {
                file.truncate(at);
            } else {
                let end = (at + bytes).min(file.len());
                file[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
            }
            std::fs::write(&path, &file).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            match runtime.block_on(open(&path)) {
                Ok((store, known)) => {
                    // An empty file is a new store.
                    prop_assert!(known.functions == [deployed] || file.is_empty());
                    if !file.is_empty() {
                        prop_assert_eq!(read(&store, b"module"), Some(b"module".to_vec()));
                    }
                }
                Err(error) => prop_assert!(matches!(error, StoreError::Damaged { .. }), "{}", error),
            }
        }
    }
}
