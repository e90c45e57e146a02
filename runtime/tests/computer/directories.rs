//! Files: only in directories that are both offered and granted, never outside of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use nigh_proto::ingress::Handler as _;
use nigh_proto::{DirectoryGrant, Limits, Reason};
use nigh_runtime::{Computer, Config, OfferedDirectory, PrepareError};

use crate::guests;
use crate::set_up::*;

/// WASI's numbers: rights to read and to write, and what `path_open` says.
const READ: u64 = 2;
const WRITE: u64 = 64;
const CREATE: u32 = 1;
const BAD_FILE: &str = "exit code 8";
const NOT_PERMITTED: [&str; 3] = ["exit code 63", "exit code 76", "exit code 69"];

fn reader() -> String {
    guests::opens(
        0,
        READ,
        "(drop (call $io (i32.const 1) (i32.const 1024) (call $read_from (i32.load (i32.const 12)))))",
    )
}

fn writer() -> String {
    guests::opens(CREATE, WRITE, "(drop (call $io (i32.load (i32.const 12)) (i32.const 64) (i32.const 6)))")
}

fn computer_offering(path: &Path, writable: bool) -> Arc<Computer> {
    let offer = OfferedDirectory { name: "data".into(), path: path.to_owned(), writable };
    Computer::new(Config { directories: vec![offer], ..config() }).unwrap()
}

async fn deploy_with(computer: &Computer, guest: &str, name: &str, writable: bool) -> Result<(), PrepareError> {
    let grant = DirectoryGrant { name: name.into(), guest_path: "/data".into(), writable };
    let (deployment, module) = deployment("f", guest, limits(), vec![grant]);
    computer.deploy(deployment, module).await
}

#[tokio::test]
async fn a_granted_directory_is_read_and_nothing_outside_of_it() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let inside = outside.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("file"), "content").unwrap();
    symlink("../secret", inside.join("way-out")).unwrap();
    symlink(outside.path().join("secret"), inside.join("absolute-way-out")).unwrap();
    symlink("file", inside.join("way-in")).unwrap();

    let computer = computer_offering(&inside, false);
    deploy_with(&computer, &reader(), "data", false).await.unwrap();
    assert_eq!(answer(&computer, "f", "file").await, b"content");
    assert_eq!(answer(&computer, "f", "way-in").await, b"content");
    for path in ["../secret", "way-out", "absolute-way-out", "/etc/passwd", "./../inside/../secret"] {
        let (kind, message) = error(&computer, "f", path).await;
        assert_eq!(kind, "exit", "{path}: {message}");
        assert!(NOT_PERMITTED.iter().any(|code| message.contains(code)), "{path}: {message}");
    }
}

#[tokio::test]
async fn nothing_is_reached_without_a_grant() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "content").unwrap();
    let computer = computer_offering(folder.path(), true);
    deploy(&computer, "f", &reader(), limits()).await;
    assert!(error(&computer, "f", "file").await.1.contains(BAD_FILE));
}

#[tokio::test]
async fn writing_needs_both_the_offer_and_the_grant() {
    let folder = tempfile::tempdir().unwrap();
    let writable = computer_offering(folder.path(), true);
    deploy_with(&writable, &writer(), "data", true).await.unwrap();
    assert_eq!(answer(&writable, "f", "new").await, b"");
    assert_eq!(fs::read(folder.path().join("new")).unwrap(), b"nobody");

    deploy_with(&writable, &writer(), "data", false).await.unwrap();
    let (_, message) = error(&writable, "f", "other").await;
    assert!(NOT_PERMITTED.iter().any(|code| message.contains(code)), "{message}");
    assert!(!folder.path().join("other").exists());

    let read_only = computer_offering(folder.path(), false);
    let refused = deploy_with(&read_only, &writer(), "data", true).await.unwrap_err();
    assert_eq!(refused, PrepareError::DirectoryNotOffered { name: "data".into(), access: "writing" });
    let refused = deploy_with(&read_only, &writer(), "other", false).await.unwrap_err();
    assert_eq!(refused, PrepareError::DirectoryNotOffered { name: "other".into(), access: "reading" });
}

#[tokio::test]
async fn a_function_has_no_more_files_open_than_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "content").unwrap();
    let computer = computer_offering(folder.path(), false);
    let hoarder = guests::opens(
        0,
        READ,
        "(loop $again
            (br_if $again (i32.eqz (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (local.get $len)
                (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 12)))))
        (call $exit (i32.const 99))",
    );
    let grant = DirectoryGrant { name: "data".into(), guest_path: "/data".into(), writable: false };
    let few = Limits { open_files: 5, ..limits() };
    let (deployment, module) = deployment("f", &hoarder, few, vec![grant]);
    computer.deploy(deployment, module).await.unwrap();
    let open_before = fs::read_dir("/proc/self/fd").unwrap().count();
    let (kind, message) = error(&computer, "f", "file").await;
    assert!(kind == "file-limit" && message.contains("--open-files"), "{kind}: {message}");
    // They are closed with the instance, which is taken down after the answer.
    until("its files are closed", || computer.under_way() == 0).await;
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() < open_before + 64);
}

#[tokio::test]
async fn no_more_files_are_open_than_all_functions_together_may() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "content").unwrap();
    let offer = OfferedDirectory { name: "data".into(), path: folder.path().to_owned(), writable: false };
    // Room for one instance: the directory itself, and two files.
    let computer = Computer::new(Config { directories: vec![offer], open_files_max: 3, ..config() }).unwrap();
    let grant = DirectoryGrant { name: "data".into(), guest_path: "/data".into(), writable: false };
    let deploy = async |name: &str, guest: &str, open_files| {
        let (deployment, module) = deployment(name, guest, Limits { open_files, ..limits() }, vec![grant.clone()]);
        computer.deploy(deployment, module).await
    };
    let over = deploy("f", &reader(), 3).await.unwrap_err();
    assert_eq!(over, PrepareError::FilesOverBudget { wanted: 4, limit: 3 });
    deploy("f", &reader(), 2).await.unwrap();
    assert_eq!(answer(&computer, "f", "file").await, b"content");
    assert_eq!(answer(&computer, "f", "file").await, b"content", "what was taken is given back");
    // While another instance lives, there is no room for a second one.
    deploy("waits", &guests::native("", "(loop $again (br $again)) unreachable"), 2).await.unwrap();
    let waiting = tokio::spawn({
        let computer = computer.clone();
        // It may itself find that the other has taken the room.
        async move {
            while computer.handle(call("waits", ""), std::time::Instant::now()).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    });
    let refused = loop {
        match computer.handle(call("f", "file"), std::time::Instant::now()).await {
            Err(refused) => break refused,
            Ok(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(refused.reason, Reason::OutOfBudget, "{refused}");
    assert!(refused.retry_after.is_some() && refused.message.contains("files"), "{refused}");
    waiting.abort();
}
