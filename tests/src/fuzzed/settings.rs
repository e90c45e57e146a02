//! What operators write: configuration files, units, the command line. Whatever is written is understood or refused with
//! words, and what is understood stays within its bounds.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::Parser as _;
use nigh::cli::Cli;
use nigh::config::{
    BrokerOptions, BrokerSettings, ComputerOptions, ComputerSettings, ConfigError, ControllerOptions,
    ControllerSettings, parse_offer,
};
use nigh::units::{Size, Time};
use tempfile::TempDir;

/// The first byte chooses what the rest is.
pub(super) fn check(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => file(bytes, |config| {
            ComputerSettings::new(&ComputerOptions { config, ..Default::default() }, None).map(drop)
        }),
        1 => file(bytes, |config| BrokerSettings::new(&BrokerOptions { config, ..Default::default() }, None).map(drop)),
        2 => {
            file(bytes, |config| ControllerSettings::new(&ControllerOptions { config, ..Default::default() }).map(drop))
        }
        3 => units(&String::from_utf8_lossy(bytes)),
        _ => line(&String::from_utf8_lossy(bytes)),
    }
}

fn file(bytes: &[u8], read: impl Fn(Option<PathBuf>) -> Result<(), ConfigError>) {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder for the files"));
    let path = FOLDER.path().join("role.toml");
    std::fs::write(&path, bytes).expect("the folder is ours");
    if let Err(error) = read(Some(path.clone())) {
        assert!(!error.to_string().is_empty());
        if let ConfigError::Invalid { line, .. } = error {
            let lines = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
    }
}

fn units(text: &str) {
    if let Ok(size) = text.parse::<Size>() {
        assert!(size.bytes() > 0);
        assert!(!size.to_string().is_empty());
    }
    if let Ok(time) = text.parse::<Time>() {
        assert!(!time.duration().is_zero() && time.duration() <= Time::MAX);
        assert_eq!(time.to_string().parse::<Time>().as_ref(), Ok(&time));
    }
    if let Ok(offer) = parse_offer(text) {
        assert!(offer.path != Path::new(""));
    }
}

/// Arguments, one a line: they are understood or refused, and nothing is run.
fn line(text: &str) {
    let arguments = std::iter::once("nigh").chain(text.lines().filter(|line| !line.contains('\0')));
    if let Err(error) = Cli::try_parse_from(arguments) {
        assert!(!error.to_string().is_empty());
    }
}
