//! Authorities and certificates as files: in folders of their own, readable by their owner alone, never overwritten unless
//! told so.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nigh_proto::tls::Pem;

use super::{Authority, CaError};

/// The certificate of the authority, in its own folder and in each folder that it issues.
pub(crate) const CA: &str = "ca.pem";
/// The authority's key.
const CA_KEY: &str = "ca-key.pem";
/// The certificate that was issued.
pub(crate) const CERTIFICATE: &str = "certificate.pem";
/// Its key.
pub(crate) const KEY: &str = "key.pem";

/// Why the files of an authority or certificate cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// There is something there already.
    #[error("{} is there already; it is not overwritten without --force", .0.display())]
    Exists(PathBuf),
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// There is no authority.
    #[error("there is no authority in {}; make one with `nigh ca init`, or say where it is with --dir DIR", .0.display())]
    NoAuthority(PathBuf),
    /// What is there is no authority.
    #[error("{}: {source}", .folder.display())]
    Authority { folder: PathBuf, source: CaError },
}

/// Keeps a new authority in a folder.
pub(crate) fn write_authority(folder: &Path, authority: &Authority, force: bool) -> Result<(), FolderError> {
    let files = [(CA, authority.certificate().as_bytes()), (CA_KEY, authority.key().as_bytes())]
        .map(|(name, text)| (folder.join(name), text.to_vec()));
    write(folder, &files, force)
}

/// The authority that a folder keeps.
pub(crate) fn read_authority(folder: &Path) -> Result<Authority, FolderError> {
    let read = |name| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FolderError::NoAuthority(folder.to_owned()),
            _ => FolderError::Io { path, source },
        })
    };
    let authority = Authority::from_pem(&read(CA)?, &read(CA_KEY)?);
    authority.map_err(|source| FolderError::Authority { folder: folder.to_owned(), source })
}

/// Keeps what was issued in a folder.
pub(crate) fn write_issued(folder: &Path, pem: &Pem, force: bool) -> Result<(), FolderError> {
    let files = [(CA, &pem.ca), (CERTIFICATE, &pem.certificate), (KEY, &pem.key)]
        .map(|(name, text)| (folder.join(name), text.clone()));
    write(folder, &files, force)
}

fn write(folder: &Path, files: &[(PathBuf, Vec<u8>)], force: bool) -> Result<(), FolderError> {
    if !force && let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(FolderError::Exists(path.clone()));
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| FolderError::Io { path: folder.to_owned(), source })?;
    for (path, text) in files {
        put(path, text).map_err(|source| FolderError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

/// Puts a file in place whole: a role that watches it never reads half of it.
fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What a try before may have left has perhaps other permissions.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_their_owners_alone_and_are_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("deep/ca");
        assert!(matches!(read_authority(&folder), Err(FolderError::NoAuthority(_))));
        let authority = Authority::new().unwrap();
        write_authority(&folder, &authority, false).unwrap();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(CA_KEY), mode("")), (0o600, 0o700));
        assert!(matches!(write_authority(&folder, &authority, false), Err(FolderError::Exists(_))));
        assert_eq!(read_authority(&folder).unwrap().certificate(), authority.certificate());
        let other = Authority::new().unwrap();
        write_authority(&folder, &other, true).unwrap();
        assert_eq!(read_authority(&folder).unwrap().certificate(), other.certificate());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing is left beside");
    }
}
