//! Removes directories with whatever programs have left in them.

use std::ffi::CStr;
use std::fs::{read_dir, symlink_metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, chmod, fstat, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::sys::FileRights;

/// Removes what an earlier server has left in its directory for working directories, and that directory.
///
/// # Errors
/// As [`remove_tree`].
pub(super) fn remove_all_owned(directory: &Path) -> io::Result<()> {
    for entry in read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_owned(&entry.path())?;
        }
    }
    remove_tree(directory)
}

/// As [`remove_tree`], with the rights of the owner of the directory, which can be another user than that of the server.
/// What the owner cannot remove is removed with the rights of the server.
///
/// # Errors
/// As [`remove_tree`].
pub(super) fn remove_owned(path: &Path) -> io::Result<()> {
    let rights = symlink_metadata(path).ok().and_then(|found| FileRights::of_owner(&found));
    let Some(rights) = rights else { return remove_tree(path) };
    let emptied = empty(path);
    drop(rights);
    match emptied.and_then(|()| unlinkat(CWD, path, AtFlags::REMOVEDIR)) {
        Ok(()) => Ok(()),
        Err(_) => remove_tree(path),
    }
}

/// Removes a directory with its contents, whatever their modes, depth and number. No link is followed. Needs three
/// descriptors at any depth: what is deeper is moved up before it is removed.
///
/// # Errors
/// As the system calls. A directory that does not exist is none.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match empty(path).and_then(|()| unlinkat(CWD, path, AtFlags::REMOVEDIR)) {
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

fn empty(path: &Path) -> Result<(), Errno> {
    let root = open_directory(CWD, path)?;
    let mut moved = 0;
    while remove_entries(&root, |name| remove_directory(&root, name, &mut moved))? > 0 {}
    Ok(())
}

/// Removes a directory in `root`, and moves directories in it that are not empty to `root`. `moved` counts these.
fn remove_directory(root: &OwnedFd, name: &CStr, moved: &mut u64) -> Result<(), Errno> {
    let directory = open_directory(root, name)?;
    while remove_entries(&directory, |name| move_up(&directory, name, root, moved))? > 0 {}
    unlinkat(root, name, AtFlags::REMOVEDIR)
}

fn move_up(directory: &OwnedFd, name: &CStr, root: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        result => return result,
    }
    // A directory that cannot be written to cannot be moved to another one.
    drop(open_directory(directory, name)?);
    loop {
        *moved += 1;
        match renameat_with(directory, name, root, format!("moved-{moved}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

/// Removes the files of a directory; calls `remove` for each directory in it. Returns how many entries there were.
fn remove_entries(directory: &OwnedFd, mut remove: impl FnMut(&CStr) -> Result<(), Errno>) -> Result<usize, Errno> {
    let mut found = 0;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        found += 1;
        match unlinkat(directory, name, AtFlags::empty()) {
            // Linux and POSIX, respectively, for a directory.
            Err(Errno::ISDIR | Errno::PERM) => remove(name)?,
            result => result?,
        }
    }
    Ok(found)
}

/// Opens a directory, after giving its owner all permissions.
fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    if !Mode::from_raw_mode(fstat(&found)?.st_mode).contains(Mode::RWXU) {
        // By way of the descriptor, since the name could be replaced by a link meanwhile.
        chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)?;
    }
    openat(&found, c".", flags | OFlags::RDONLY, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_is_removed_whatever_its_modes_and_links() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, outside) = (scratch.path().join("tree"), scratch.path().join("outside"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join("moved-1/x")).unwrap();
        fs::create_dir(&outside).unwrap();
        for file in [tree.join("a/b/c/file"), tree.join("a/file"), tree.join("moved-2"), outside.join("kept")] {
            fs::write(file, "x").unwrap();
        }
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(&outside, tree.join("a/b/c/link")).unwrap();
        for (directory, mode) in [("a/b/c", 0o555), ("a/b", 0o000), ("a", 0o111), ("", 0o555)] {
            fs::set_permissions(tree.join(directory), Permissions::from_mode(mode)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&tree).unwrap();
        let link = scratch.path().join("link");
        symlink(&outside, &link).unwrap();
        assert!(remove_tree(&link).is_err());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_tree_of_any_depth_is_removed_with_a_small_stack() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut deepest = open_directory(CWD, &tree).unwrap();
        for _ in 0..3_000 {
            mkdirat(&deepest, c"d", Mode::RWXU).unwrap();
            deepest = open_directory(&deepest, c"d").unwrap();
        }
        drop(deepest);
        std::thread::scope(|scope| {
            let remove = || remove_tree(&tree).unwrap();
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, remove).unwrap();
        });
        assert!(!tree.exists());
    }
}
