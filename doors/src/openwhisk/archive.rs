//! Code that comes as a zip archive, as the command lines of OpenWhisk send files that end in `.zip`: the one Wasm module in it.

use std::io::{Cursor, Read as _};

use bytes::Bytes;
use http::StatusCode;
use zip::ZipArchive;
use zip::read::ZipFile;

use super::failure::Failure;

/// Files of one archive, at most.
const FILES_MAX: usize = 10_000;
/// Names that are told where there are several modules.
const NAMES_TOLD_MAX: usize = 4;
/// What a Wasm module's name ends in, and what it begins with.
const ENDS: &str = ".wasm";
const BEGINS: &[u8] = b"\0asm";

/// The module in an archive, of so many bytes at most.
///
/// # Errors
/// What is wrong with it, exactly.
pub(super) fn module(archive: &[u8], bytes_max: usize) -> Result<Bytes, Failure> {
    let broken = |error| Failure::bad(format!("the code is a zip archive that cannot be read: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(broken)?;
    if archive.len() > FILES_MAX {
        let message =
            format!("the code is a zip archive of {} files; at most {FILES_MAX} are looked at", archive.len());
        return Err(Failure::bad(message));
    }
    let mut modules: Vec<(usize, String)> = Vec::new();
    for at in 0..archive.len() {
        // Also of a file that could not be unpacked.
        let name = archive.by_index_raw(at).map_err(broken)?.name().map_err(broken)?.into_owned();
        if is_module(&name) {
            modules.push((at, name));
        }
    }
    let (at, name) = match &modules[..] {
        [(at, name)] => (*at, printable(name)),
        [] => {
            let message = format!(
                "the code is a zip archive of {} files of which none ends in {ENDS}; only Wasm modules run here, so put the one that is to run into it",
                archive.len()
            );
            return Err(Failure::bad(message));
        }
        several => {
            let names: Vec<_> = several.iter().take(NAMES_TOLD_MAX).map(|(_, name)| printable(name)).collect();
            let message = format!(
                "the code is a zip archive with {} Wasm modules ({}); send one with the module that is to run alone",
                several.len(),
                names.join(", ")
            );
            return Err(Failure::bad(message));
        }
    };
    let broken =
        |error: &dyn std::fmt::Display| Failure::bad(format!("{name} in the zip archive cannot be read: {error}"));
    let file = archive.by_index(at).map_err(|error| broken(&error))?;
    let module = unpacked(file, bytes_max).map_err(|error| broken(&error))?;
    if module.len() > bytes_max {
        let message = format!("{name} in the zip archive has over {bytes_max} bytes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    if !module.starts_with(BEGINS) {
        return Err(Failure::bad(format!("{name} in the zip archive is no Wasm module")));
    }
    Ok(module.into())
}

/// A file's bytes, but not many more than may be: what an archive says of its files' sizes need not be so.
fn unpacked<R: std::io::Read>(file: ZipFile<'_, R>, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Beside it, archives of one system hold a shadow of each file.
fn is_module(name: &str) -> bool {
    let is_shadow = name.split('/').any(|segment| segment == "__MACOSX" || segment.starts_with("._"));
    name.to_ascii_lowercase().ends_with(ENDS) && !is_shadow
}

fn printable(name: &str) -> String {
    name.chars().take(100).map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn told(files: &[(&str, &[u8])]) -> String {
        module(&archive(files, CompressionMethod::Deflated), 1 << 20).unwrap_err().message
    }

    #[test]
    fn the_one_module_is_taken_whatever_is_beside_it() {
        let wasm: &[u8] = b"\0asm\x01\0\0\0";
        for method in [CompressionMethod::Deflated, CompressionMethod::Stored] {
            let files: [(&str, &[u8]); 3] =
                [("package.json", b"{}"), ("build/Main.WASM", wasm), ("__MACOSX/build/._Main.WASM", b"x")];
            assert_eq!(module(&archive(&files, method), 1 << 20).unwrap(), wasm, "{method:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_exactly() {
        let wasm: &[u8] = b"\0asm\x01\0\0\0";
        assert!(told(&[("index.js", b"exports.main = 7")]).contains("of 1 files of which none ends in .wasm"));
        assert!(told(&[("a.wasm", wasm), ("b.wasm", wasm)]).contains("2 Wasm modules (a.wasm, b.wasm)"));
        assert!(told(&[("a.wasm", b"MZ")]).contains("a.wasm in the zip archive is no Wasm module"));
        let cut = &archive(&[("a.wasm", wasm)], CompressionMethod::Stored)[..20];
        assert!(module(cut, 1 << 20).unwrap_err().message.contains("cannot be read"));
    }

    #[test]
    fn an_archive_that_swells_is_given_up_at_the_limit() {
        let mut bytes = b"\0asm".to_vec();
        bytes.resize(8 << 20, 0);
        let small = archive(&[("a.wasm", &bytes)], CompressionMethod::Deflated);
        assert!(small.len() < 64 << 10);
        assert_eq!(module(&small, 1 << 20).unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(module(&small, 8 << 20).unwrap().len(), 8 << 20);
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_than_refused(damage in prop::collection::vec((0usize..200, any::<u8>()), 0..20)) {
            let mut bytes = archive(&[("a.wasm", b"\0asm\x01\0\0\0"), ("b", b"x")], CompressionMethod::Deflated);
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(module) = module(&bytes, 1 << 10) {
                prop_assert!(module.starts_with(BEGINS));
            }
        }
    }
}
