//! What a computer is made of, from its configuration.

use crate::cache::Cache;
use crate::compile;
use crate::config::{Config, OfferedDirectory};
use crate::error::Error;

/// The folder for compiled modules: the operator's, or one that is gone with the computer.
pub(super) fn open_cache(config: &Config, engine: &wasmtime::Engine) -> Result<Cache, Error> {
    let configuration = (engine.precompile_compatibility_hash(), compile::RECIPE);
    let (path, opened) = match &config.cache {
        Some(folder) => (folder.display().to_string(), Cache::open(folder, config.cache_bytes_max, configuration)),
        None => ("(temporary)".to_owned(), Cache::temporary(config.cache_bytes_max, configuration)),
    };
    opened.map_err(|error| Error::Cache { path, error })
}

/// An offer with its path resolved once, so that a later change of the working directory changes nothing.
pub(super) fn open_offer(offer: &OfferedDirectory) -> Result<OfferedDirectory, Error> {
    let failed = |error| Error::Directory { name: offer.name.clone(), path: offer.path.display().to_string(), error };
    let path = offer.path.canonicalize().map_err(failed)?;
    if !path.is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    Ok(OfferedDirectory { path, ..offer.clone() })
}
