//! Compiled modules on disk, through a whole computer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nigh_runtime::{Computer, Config};

use crate::guests;
use crate::set_up::*;

fn compiled(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
}

/// What a fresh computer with this cache makes of the guest, and when the cached file was written.
async fn run(folder: &Path, guest: &str) -> (Vec<u8>, SystemTime) {
    let computer = Computer::new(Config { cache: Some(folder.to_owned()), ..config() }).unwrap();
    deploy(&computer, "f", guest, limits()).await;
    let answer = answer(&computer, "f", "").await;
    let [file] = &compiled(folder)[..] else { panic!("one file is expected") };
    (answer, fs::metadata(file).unwrap().modified().unwrap())
}

#[tokio::test]
async fn a_compiled_module_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, written) = run(folder.path(), &guests::says("hello")).await;
    let (second, still) = run(folder.path(), &guests::says("hello")).await;
    assert_eq!((&first[..], written), (&second[..], still));
    assert_eq!(first, b"hello");
}

#[tokio::test]
async fn a_damaged_truncated_or_foreign_file_is_never_executed() {
    let folder = tempfile::tempdir().unwrap();
    let (good, foreign) = (guests::says("good"), guests::says("evil"));
    run(folder.path(), &good).await;
    let path = compiled(folder.path()).remove(0);
    let original = fs::read(&path).unwrap();

    // Code of the right form for the same engine, but written by another computer.
    let elsewhere = tempfile::tempdir().unwrap();
    run(elsewhere.path(), &foreign).await;
    let evil = fs::read(compiled(elsewhere.path()).remove(0)).unwrap();
    let with_our_trailer = [&evil[..evil.len() - 40], &original[original.len() - 40..]].concat();
    let mut flipped = original.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    for bad in [evil, with_our_trailer, flipped, original[..original.len() - 1].to_vec(), Vec::new()] {
        fs::write(&path, &bad).unwrap();
        assert_eq!(run(folder.path(), &good).await.0, b"good");
        assert_ne!(fs::read(&path).unwrap(), bad, "it was replaced");
    }
}

#[tokio::test]
async fn without_its_key_a_cache_is_void_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let guest = guests::says("hello");
    run(folder.path(), &guest).await;
    let path = compiled(folder.path()).remove(0);
    let trailer = |path| fs::read(path).unwrap().into_iter().rev().take(40).collect::<Vec<_>>();
    let before = trailer(&path);
    fs::remove_file(folder.path().join("key")).unwrap();
    assert_eq!(run(folder.path(), &guest).await.0, b"hello");
    assert_ne!(trailer(&path), before);
}
