//! Compiled modules on disk. Loading one means to execute it, so a file counts only if it was written by this computer:
//! each carries an HMAC-SHA-256 over its contents, its module's digest and the engine's configuration, under a key that
//! is made when the folder is first used and that only the computer's own user can read.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use nigh_proto::Digest;
use sha2::{Digest as _, Sha256};

/// The first bytes of a file; the last is the format's version.
const MAGIC: &[u8; 8] = b"nighcwm\x02";
const MAC_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + MAC_BYTES;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "cwasm";
/// Bytes of one file at most; a larger one is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A folder of compiled modules for one configuration of the engine.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    engine: [u8; 32],
    key: [u8; KEY_BYTES],
}

/// Compiled code that this computer itself has written.
pub(crate) struct Verified(Vec<u8>);

impl Verified {
    /// The compiled code.
    pub(crate) fn code(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }
}

impl Cache {
    /// Opens a folder, made if missing, for code compiled under `configuration`.
    pub(crate) fn open(folder: &Path, bytes_max: u64, configuration: impl Hash) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        configuration.hash(&mut hasher);
        let key = key_of(folder)?;
        Ok(Self { folder: folder.to_owned(), bytes_max, engine: hasher.0.finalize().into(), key })
    }

    /// The compiled module, if there is one and it is untouched.
    pub(crate) fn load(&self, module: &Digest) -> Option<Verified> {
        let path = self.path(module);
        // Read once and judged in memory: what is executed is what was judged, whatever happens to the file.
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module cannot be read, compiling anew");
                return None;
            }
        };
        if self.is_ours(module, &bytes) {
            return Some(Verified(bytes));
        }
        tracing::warn!(path = %path.display(), "a compiled module is damaged or foreign, compiling anew");
        None
    }

    /// Keeps a compiled module, whole or not at all.
    pub(crate) fn store(&self, module: &Digest, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.mac(module, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.persist(self.path(module)).map_err(|error| error.error)?;
        self.prune(&self.path(module))
    }

    fn path(&self, module: &Digest) -> PathBuf {
        let engine: String = self.engine[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{module}-{engine}.{EXTENSION}"))
    }

    fn mac(&self, module: &Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256>>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(MAGIC);
        mac.update(&self.engine);
        mac.update(module.to_string().as_bytes());
        mac.update(code);
        mac
    }

    fn is_ours(&self, module: &Digest, bytes: &[u8]) -> bool {
        let Some((header, code)) = bytes.split_at_checked(HEADER_BYTES) else { return false };
        header.starts_with(MAGIC) && self.mac(module, code).verify_slice(&header[MAGIC.len()..]).is_ok()
    }

    /// Removes the oldest files beyond the folder's limit, but not the one just written.
    fn prune(&self, newest: &Path) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let about = entry.metadata()?;
                files.push((about.modified()?, about.len(), path));
            }
        }
        let mut total: u64 = files.iter().map(|file| file.1).sum();
        files.sort();
        for (_, bytes, path) in files.into_iter().filter(|file| file.2 != newest) {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The folder's key. One that others could have read or that has not its form is replaced, and with it everything that
/// was written under it is void.
fn key_of(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY_FILE);
    match File::open(&path) {
        Ok(mut file) => {
            let mut key = [0; KEY_BYTES];
            let is_private = file.metadata()?.permissions().mode() & 0o077 == 0;
            if is_private && file.metadata()?.len() == KEY_BYTES as u64 && file.read_exact(&mut key).is_ok() {
                return Ok(key);
            }
            tracing::warn!(path = %path.display(), "the key of the compiled modules is damaged or not private, making a new one");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key: [u8; KEY_BYTES] = rand::random();
    let fresh = folder.join(format!("{KEY_FILE}.{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok(key)
}

/// Lets a type that can only be hashed be told apart by SHA-256, which is the same in every process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> Digest {
        Digest::of(b"module")
    }

    fn open(folder: &Path) -> Cache {
        Cache::open(folder, 1 << 20, "engine").unwrap()
    }

    #[test]
    fn what_is_stored_is_loaded_also_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).store(&module(), b"code").unwrap();
        assert_eq!(open(folder.path()).load(&module()).unwrap().code(), b"code");
        assert!(open(folder.path()).load(&Digest::of(b"other")).is_none());
    }

    #[test]
    fn a_damaged_or_truncated_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path());
        cache.store(&module(), b"code").unwrap();
        let path = cache.path(&module());
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(cache.load(&module()).is_none(), "changed at {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(cache.load(&module()).is_none(), "cut at {at}");
        }
        fs::write(&path, &good).unwrap();
        assert!(cache.load(&module()).is_some());
    }

    #[test]
    fn a_file_from_elsewhere_is_refused() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mine, foreign) = (open(here.path()), open(there.path()));
        foreign.store(&module(), b"code").unwrap();
        fs::copy(foreign.path(&module()), mine.path(&module())).unwrap();
        assert!(mine.load(&module()).is_none(), "another folder's key");
        mine.store(&module(), b"code").unwrap();
        fs::copy(mine.path(&module()), mine.path(&Digest::of(b"other"))).unwrap();
        assert!(mine.load(&Digest::of(b"other")).is_none(), "another module's code");
        let other_engine = Cache::open(here.path(), 1 << 20, "other engine").unwrap();
        fs::copy(mine.path(&module()), other_engine.path(&module())).unwrap();
        assert!(other_engine.load(&module()).is_none(), "another engine's code");
    }

    #[test]
    fn a_key_that_others_can_read_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let before = open(folder.path());
        let path = folder.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(open(folder.path()).key, before.key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_folder_stays_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 300, "engine").unwrap();
        for number in 0..10u8 {
            cache.store(&Digest::of(&[number]), &[number; 60]).unwrap();
        }
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3 + 1, "three files of 100 bytes and the key");
        assert!(cache.load(&Digest::of(&[9])).is_some());
    }
}
