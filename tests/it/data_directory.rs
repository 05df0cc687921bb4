//! The data directory: its name is a path whatever it looks like, and what it contains survives a power failure.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BINARY, Faults, KillOnDrop, check, eventually_blocking};

fn lineshaft(directory: &Path, arguments: &[&OsStr]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.current_dir(directory).args(arguments);
    command
}

/// Starts a server in `directory`, waits until it is ready, and stops it.
fn serve(directory: &Path, data: &OsStr, variables: &[(&str, String)]) {
    let outside = tempfile::tempdir().unwrap();
    let (ready, log) = (outside.path().join("ready"), outside.path().join("log"));
    let mut command =
        lineshaft(directory, &["serve".as_ref(), "--listen".as_ref(), "127.0.0.1:0".as_ref(), "--data-dir".as_ref()]);
    command.arg(data).arg("--ready-file").arg(&ready).envs(variables.iter().cloned());
    let file = std::fs::File::create(&log).unwrap();
    let mut child = KillOnDrop(command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
    let log = || std::fs::read_to_string(&log).unwrap();
    eventually_blocking(|| {
        assert!(child.0.try_wait().unwrap().is_none(), "{}: {}", data.display(), log());
        check(ready.exists(), log)
    });
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert!(child.0.wait().unwrap().success(), "{}", log());
}

fn names(directory: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn assert_success(output: &Output) -> String {
    let text = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_name_of_a_data_directory_is_a_path_whatever_it_looks_like() {
    let bytes = OsString::from_vec(b"bytes\xff\xfe".to_vec());
    let plain = ["file:foo", "file:foo?mode=memory", ":memory:", "a?b#c%20d", "sub dir/'x'", "slash/", "file::memory:"];
    for name in plain.iter().map(OsStr::new).chain([&*bytes]) {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        serve(directory, name, &[]);
        let data = directory.join(name);
        let found = names(&data);
        for file in ["lock", "journal.db", "journal.mark", "projection.db", "projection.mark"] {
            assert!(found.contains(OsStr::new(file)), "{name:?}: {file} is not in {found:?}");
        }
        assert_eq!(names(directory).len(), 1, "{name:?}: {:?}", names(directory));

        let copy = OsStr::new("file:copy?x=%41");
        let backup = ["store", "backup", "--data-dir"].map(OsStr::new);
        let arguments = [&backup[..], &[name, OsStr::new("--to"), copy]].concat();
        assert_success(&lineshaft(directory, &arguments).output().unwrap());
        let files = ["journal.db", "projection.db"].map(OsString::from);
        assert_eq!(names(&directory.join(copy)), files.into(), "{name:?}");
        for (command, directory_name) in [("check", name), ("check", copy), ("rebuild", name)] {
            let arguments = [OsStr::new("store"), OsStr::new(command), directory_name];
            assert_success(&lineshaft(directory, &arguments).output().unwrap());
        }
        let output = lineshaft(directory, &["doctor".as_ref(), "--data-dir".as_ref(), name]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("has a store, not in use"), "{name:?}: {text}");
        assert_eq!(names(directory).len(), 2, "{name:?}: {:?}", names(directory));
    }
}

#[test]
fn the_log_of_a_linked_database_file_is_verified_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("data")).unwrap();
    for (disk, name) in [("disk-1", "journal.db"), ("disk-2", "projection.db")] {
        std::fs::create_dir(path(disk)).unwrap();
        symlink(Path::new("..").join(disk).join(name), path("data").join(name)).unwrap();
    }
    serve(directory.path(), OsStr::new("data"), &[]);
    assert!(names(&path("disk-1")).contains(OsStr::new("journal.mark")), "{:?}", names(&path("disk-1")));
    assert!(names(&path("disk-2")).contains(OsStr::new("projection.mark")), "{:?}", names(&path("disk-2")));
    std::fs::write(path("disk-1/journal.db-wal"), vec![0x41; 64]).unwrap();
    let check = ["store", "check", "data"].map(OsStr::new);
    let output = lineshaft(directory.path(), &check).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("disk-1/journal.db-wal"), "{text}");
}

#[test]
fn the_names_of_new_files_are_synced() {
    let faults = Faults::new();
    faults.set(&[]);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let synced = || faults.recorded().into_iter().collect::<BTreeSet<_>>();
    let assert_synced = |paths: &[&str]| {
        for path in paths {
            let path = root.join(path);
            let line = format!("synced {}", path.display().to_string().trim_end_matches('/'));
            assert!(synced().contains(&line), "{line} is missing: {:?}", synced());
        }
    };
    serve(&root, OsStr::new("new/deep/data"), &faults.variables());
    assert_synced(&["", "new", "new/deep", "new/deep/data", "new/deep/data/journal.mark"]);

    let run = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        assert_success(&lineshaft(&root, &arguments).envs(faults.variables()).output().unwrap());
    };
    faults.set(&[]);
    std::fs::create_dir(root.join("copies")).unwrap();
    run(&["store", "backup", "--data-dir", "new/deep/data", "--to", "copies/one"]);
    assert_synced(&[
        "copies",
        "copies/one.partial",
        "copies/one.partial/journal.db",
        "copies/one.partial/projection.db",
    ]);

    // The damaged file is renamed.
    faults.set(&[]);
    std::fs::write(root.join("new/deep/data/projection.db"), vec![0x41; 8192]).unwrap();
    run(&["store", "rebuild", "new/deep/data"]);
    assert!(root.join("new/deep/data/projection.db.damaged-1").exists());
    assert_synced(&["new/deep/data"]);

    faults.set(&[]);
    run(&["token", "create", "ci", "--role", "viewer", "--namespace", "*", "--file", "new/tokens.toml"]);
    assert_synced(&["new", "new/tokens.toml.draft"]);
}

#[test]
fn files_of_the_store_and_of_a_backup_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let private = |data: &Path| {
        assert_eq!(mode(data), 0o700, "{}", data.display());
        for name in names(data) {
            let path = data.join(&name);
            assert_eq!(mode(&path) & 0o077, 0, "{} has mode {:o}", path.display(), mode(&path));
        }
    };
    let handler = "[[handler]]\nname = \"true\"\nrunner = \"process\"\nargv = [\"true\"]\n";
    let config = directory.join("lineshaft.toml");
    std::fs::write(&config, handler).unwrap();
    let with_processes = [("LINESHAFT_CONFIG", config.display().to_string())];
    serve(directory, "data".as_ref(), &with_processes);
    private(&directory.join("data"));
    // Files of an earlier version.
    for name in names(&directory.join("data")) {
        let path = directory.join("data").join(name);
        let mode = if path.is_dir() { 0o700 } else { 0o644 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    serve(directory, "data".as_ref(), &with_processes);
    private(&directory.join("data"));
    let arguments = ["store", "backup", "--to", "copy", "--data-dir", "data"].map(OsStr::new);
    assert_success(&lineshaft(directory, &arguments).output().unwrap());
    private(&directory.join("copy"));
}

#[test]
fn links_in_a_directory_that_others_can_write_to_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let precious = directory.join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::fs::create_dir(directory.join("data")).unwrap();
    for name in ["lock", "journal.mark"] {
        let link = directory.join("data").join(name);
        symlink(&precious, &link).unwrap();
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"].map(OsStr::new);
        let output = lineshaft(directory, &arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(name) && text.contains("symbolic link"), "{name}: {text}");
        std::fs::remove_file(&link).unwrap();
    }
    for link in ["ready", "ready.draft"] {
        symlink(&precious, directory.join(link)).unwrap();
    }
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--ready-file", "ready"].map(OsStr::new);
    let mut child = KillOnDrop(lineshaft(directory, &arguments).stderr(Stdio::null()).spawn().unwrap());
    let ready = directory.join("ready");
    eventually_blocking(|| check(!ready.is_symlink(), || "the link was not replaced".to_owned()));
    assert!(std::fs::read_to_string(&ready).unwrap().starts_with("127.0.0.1:"));
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert!(child.0.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

/// Starts a server in `data`, which refuses to open the file `name`. Returns what it printed.
fn refused(directory: &Path, name: &str) -> String {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"].map(OsStr::new);
    let output = lineshaft(directory, &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(name), "{text}");
    text
}

#[test]
fn database_files_with_several_names_are_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::create_dir(directory.join("data")).unwrap();
    let other = directory.join("other");
    std::fs::write(&other, "").unwrap();
    for name in ["journal.db", "projection.db"] {
        let file = directory.join("data").join(name);
        std::fs::hard_link(&other, &file).unwrap();
        let text = refused(directory, name);
        assert!(text.contains("2 names (hard links)"), "{text}");
        assert_eq!(std::fs::read(&other).unwrap(), b"");
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn database_files_that_are_links_of_another_user_are_not_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("without root, no link of another user can be made: this test checks nothing");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::create_dir(directory.join("data")).unwrap();
    let target = directory.join("target");
    for name in ["journal.db", "projection.db"] {
        let link = directory.join("data").join(name);
        symlink(&target, &link).unwrap();
        lchown(&link, Some(4_711), None).unwrap();
        let text = refused(directory, name);
        assert!(text.contains("link of another user"), "{text}");
        assert!(!target.exists(), "{name} was created");
        std::fs::remove_file(&link).unwrap();
    }
}

#[test]
fn a_link_in_place_of_the_work_directory_is_removed_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (data, target) = (directory.join("data"), directory.join("target"));
    for path in [&data, &target] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(target.join("precious"), "").unwrap();
    symlink(&target, data.join("work")).unwrap();
    eventually_blocking(|| {
        // A server removes it in the background.
        serve(directory, OsStr::new("data"), &[]);
        check(std::fs::symlink_metadata(data.join("work.1")).is_err(), || "the link is still there".to_owned())
    });
    assert!(std::fs::symlink_metadata(data.join("work")).unwrap().is_dir());
    assert!(target.join("precious").exists());
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
