//! What is in the file.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableTable as _, StorageError, TableDefinition};

use crate::error::StoreError;

/// The version of the tables below; raised with every change that older releases could not read.
const SCHEMA: u64 = 1;
const SCHEMA_KEY: &str = "schema";
/// The last revision that a change of any bucket was given.
pub(super) const REVISION_KEY: &str = "revision";
/// Memory for pages read before.
const CACHE_BYTES: usize = 32 << 20;

/// Facts about the file itself.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Bucket and key → revision, when it expires (ms since 1970; 0: never), and the value.
pub(super) const VALUES: TableDefinition<'_, (&str, &str), (u64, u64, &[u8])> = TableDefinition::new("values");
/// When a value expires, bucket and key.
pub(super) const EXPIRIES: TableDefinition<'_, (u64, &str, &str), ()> = TableDefinition::new("expiries");
/// Queue and number → what is known of an item, an [`super::queue::EntryRecord`].
pub(super) const ENTRIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("entries");
/// Queue and number → the item. Apart from its entry, so that changing the entry does not write the item again.
pub(super) const ITEMS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("items");
/// Queue and an item's id → its number.
pub(super) const IDS: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("ids");
/// Collection and object's name → its bytes, when it was put (ms since 1970), its digest.
pub(super) const OBJECTS: TableDefinition<'_, (&str, &str), (u64, u64, &[u8])> = TableDefinition::new("objects");
/// Collection, object's name and number of a part → the part.
pub(super) const PARTS: TableDefinition<'_, (&str, &str, u32), &[u8]> = TableDefinition::new("parts");

/// Opens the file, or makes it with its tables; refuses one with other tables.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let database =
        Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| open_error(path, error))?;
    let damaged = |error: redb::Error| StoreError::Damaged { path: path.to_owned(), detail: error.to_string() };
    match check(&database).map_err(damaged)? {
        Some(SCHEMA) => Ok(database),
        Some(found) => Err(StoreError::Version { path: path.to_owned(), found, known: SCHEMA }),
        None => Err(StoreError::Damaged { path: path.to_owned(), detail: "it holds other data".to_owned() }),
    }
}

/// The version of a file's tables, which are made in a new one; nothing where it has others.
fn check(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(SCHEMA_KEY)?.map(|found| found.value());
        match found {
            None if is_new => {
                meta.insert(SCHEMA_KEY, SCHEMA)?;
                Some(SCHEMA)
            }
            found => found,
        }
    };
    if found == Some(SCHEMA) {
        transaction.open_table(VALUES)?;
        transaction.open_table(EXPIRIES)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(ITEMS)?;
        transaction.open_table(IDS)?;
        transaction.open_table(OBJECTS)?;
        transaction.open_table(PARTS)?;
        transaction.commit()?;
    }
    Ok(found)
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Open { path, error: error.to_string() }
        }
        error => StoreError::Damaged { path, detail: error.to_string() },
    }
}
