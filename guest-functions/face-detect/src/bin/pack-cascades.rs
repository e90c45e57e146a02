//! Makes the files in `cascades/` from OpenCV's XML: `pack-cascades [FOLDER]`, by default where Debian's package
//! `opencv-data` puts them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const DEBIAN: &str = "/usr/share/opencv4/haarcascades";

#[expect(clippy::print_stderr, reason = "a command-line tool")]
fn main() -> ExitCode {
    let originals = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(DEBIAN), PathBuf::from);
    let into = Path::new(env!("CARGO_MANIFEST_DIR")).join("cascades");
    match face_detect::pack::pack_all(&originals, &into, &origin(&originals)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pack-cascades: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What `SOURCES.md` calls the originals: the Debian package and its version, or else the folder.
fn origin(originals: &Path) -> String {
    let version = Command::new("dpkg-query").args(["-W", "-f=${Version}", "opencv-data"]).output().ok();
    match version.filter(|found| originals == Path::new(DEBIAN) && found.status.success()) {
        Some(found) => format!("Debian package `opencv-data` {}", String::from_utf8_lossy(&found.stdout).trim()),
        None => format!("`{}`", originals.display()),
    }
}
