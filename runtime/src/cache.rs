//! Compiled modules on disk. Loading one means to execute it, so a file counts only if it was written by this computer:
//! each carries an HMAC-SHA-256 over its contents, its module's digest and the engine's configuration, under a key that
//! is made when the folder is first used and that only the computer's own user can read.
//!
//! A file is judged anew each time that it is loaded, and then mapped: its pages are shared with the page cache, read
//! when first used, and given up first where memory is short. `docs/decisions/` tells why that is safe.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use nigh_proto::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The last bytes of a file, behind its code and its HMAC; the very last is the format's version.
const MAGIC: &[u8; 8] = b"nighcwm\x03";
const MAC_BYTES: usize = 32;
const TRAILER_BYTES: usize = MAC_BYTES + MAGIC.len();
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "cwasm";
/// Bytes of one file at most; a larger one is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes read at once while a file is judged.
const CHUNK_BYTES: usize = 64 << 10;
/// The share of a full folder that is left once it has been pruned, so that this is seldom done.
const LEFT_AFTER_PRUNING: f64 = 0.9;

/// A folder of compiled modules for one configuration of the engine.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// Bytes of all files, as far as this process knows.
    bytes: AtomicU64,
    engine: [u8; 32],
    key: [u8; KEY_BYTES],
    /// Held where the folder lives no longer than the computer.
    _temporary: Option<TempDir>,
}

/// Compiled code that this computer itself has written.
#[derive(Debug)]
pub(crate) enum Verified {
    /// In a file that nobody but this computer's own user can change.
    File(File),
    /// In memory, judged there.
    Bytes(Vec<u8>),
}

impl Cache {
    /// Opens a folder, made if missing, for code compiled under `configuration`.
    pub(crate) fn open(folder: &Path, bytes_max: u64, configuration: impl Hash) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        configuration.hash(&mut hasher);
        let cache = Self {
            folder: folder.to_owned(),
            bytes_max,
            bytes: AtomicU64::new(0),
            engine: hasher.0.finalize().into(),
            key: key_of(folder)?,
            _temporary: None,
        };
        cache.bytes.store(cache.files()?.iter().map(|file| file.bytes).sum(), Ordering::Relaxed);
        Ok(cache)
    }

    /// A folder that is gone when the computer is.
    pub(crate) fn temporary(bytes_max: u64, configuration: impl Hash) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("nigh-compiled-").tempdir()?;
        let cache = Self::open(folder.path(), bytes_max, configuration)?;
        Ok(Self { _temporary: Some(folder), ..cache })
    }

    /// The compiled module, if there is one and it is untouched.
    pub(crate) fn load(&self, module: &Digest) -> Option<Verified> {
        let path = self.path(module);
        match File::open(&path).and_then(|file| self.judge(module, file)) {
            Ok(Some(verified)) => Some(verified),
            Ok(None) => {
                tracing::warn!(path = %path.display(), "a compiled module is damaged or foreign, compiling anew");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module cannot be read, compiling anew");
                None
            }
        }
    }

    /// Keeps a compiled module, whole or not at all.
    pub(crate) fn store(&self, module: &Digest, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        let mut mac = self.mac(module);
        mac.update(code);
        file.write_all(code)?;
        file.write_all(&mac.finalize().into_bytes())?;
        file.write_all(MAGIC)?;
        let path = self.path(module);
        // Renamed into place: whoever has mapped the one before keeps what it has judged.
        file.persist(&path).map_err(|error| error.error)?;
        let bytes = (code.len() + TRAILER_BYTES) as u64;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.bytes_max {
            self.prune(&path)?;
        }
        Ok(())
    }

    fn path(&self, module: &Digest) -> PathBuf {
        let engine: String = self.engine[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{module}-{engine}.{EXTENSION}"))
    }

    /// The HMAC of a module's code, but for the code.
    fn mac(&self, module: &Digest) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256>>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(MAGIC);
        mac.update(&self.engine);
        mac.update(module.to_string().as_bytes());
        mac
    }

    /// Reads a file to its end and checks that this computer wrote it. What is handed on is what was judged: the very
    /// file where no other user can write to it, else the bytes read.
    fn judge(&self, module: &Digest, mut file: File) -> io::Result<Option<Verified>> {
        let about = file.metadata()?;
        let code_bytes = about.len().checked_sub(TRAILER_BYTES as u64);
        let Some(code_bytes) = code_bytes.filter(|_| about.is_file() && about.len() <= FILE_BYTES_MAX) else {
            return Ok(None);
        };
        let is_ours_alone =
            about.uid() == rustix::process::geteuid().as_raw() && about.permissions().mode() & 0o022 == 0;
        let mut mac = self.mac(module);
        let verified = if is_ours_alone {
            read_chunks(&mut file, code_bytes, |chunk| mac.update(chunk))?;
            None
        } else {
            let mut code = Vec::new();
            (&file).take(code_bytes).read_to_end(&mut code)?;
            mac.update(&code);
            Some(Verified::Bytes(code))
        };
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact(&mut trailer)?;
        let (tag, magic) = trailer.split_at(MAC_BYTES);
        let is_genuine = magic == MAGIC && mac.verify_slice(tag).is_ok();
        Ok(is_genuine.then(|| verified.unwrap_or(Verified::File(file))))
    }

    /// Removes the oldest files until the folder is within its limit, but not the one just written.
    fn prune(&self, newest: &Path) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort();
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        if total > self.bytes_max {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a limit"
            )]
            let left = (self.bytes_max as f64 * LEFT_AFTER_PRUNING) as u64;
            for file in files.into_iter().filter(|file| file.path != newest) {
                if total <= left {
                    break;
                }
                fs::remove_file(&file.path)?;
                total -= file.bytes;
            }
        }
        self.bytes.store(total, Ordering::Relaxed);
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<CachedFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let about = entry.metadata()?;
                files.push(CachedFile { modified: about.modified()?, bytes: about.len(), path });
            }
        }
        Ok(files)
    }
}

/// A file of the folder, ordered by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CachedFile {
    modified: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// Reads so many bytes, a chunk at a time.
fn read_chunks(file: &mut File, bytes: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        file.read_exact(&mut chunk[..room])?;
        take(&chunk[..room]);
        left -= room as u64;
    }
    Ok(())
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

    fn code(verified: Verified) -> Vec<u8> {
        match verified {
            Verified::Bytes(bytes) => bytes,
            Verified::File(mut file) => {
                let mut bytes = Vec::new();
                io::Seek::rewind(&mut file).unwrap();
                file.read_to_end(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - TRAILER_BYTES);
                bytes
            }
        }
    }

    #[test]
    fn what_is_stored_is_loaded_also_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).store(&module(), b"code").unwrap();
        assert_eq!(code(open(folder.path()).load(&module()).unwrap()), b"code");
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
    fn a_file_that_others_could_write_to_is_judged_and_used_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path());
        cache.store(&module(), b"code").unwrap();
        assert!(matches!(cache.load(&module()), Some(Verified::File(_))));
        fs::set_permissions(cache.path(&module()), fs::Permissions::from_mode(0o666)).unwrap();
        let verified = cache.load(&module()).unwrap();
        assert!(matches!(verified, Verified::Bytes(_)));
        assert_eq!(code(verified), b"code");
    }

    #[test]
    fn a_temporary_folder_goes_with_its_cache() {
        let cache = Cache::temporary(1 << 20, "engine").unwrap();
        cache.store(&module(), b"code").unwrap();
        let folder = cache.folder.clone();
        assert!(cache.load(&module()).is_some() && folder.exists());
        drop(cache);
        assert!(!folder.exists());
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
        assert_eq!(left, 2 + 1, "two files of 100 bytes, so that there is room for a while, and the key");
        assert!(cache.load(&Digest::of(&[9])).is_some());
    }
}
