//! Files and directories that only the server's user can read. Nothing here is written through a symbolic link, so that
//! who can write to a directory cannot choose what is overwritten.

mod write_back;

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{Gid, Uid, fchown};
use rustix::process::geteuid;

pub use write_back::WriteBack;

const FILE_MODE: u32 = 0o600;
pub const DIRECTORY_MODE: u32 = 0o700;
/// Permissions of the group and of others.
const FOREIGN: u32 = 0o077;

/// Creates a directory with mode 0700, and its missing parents.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Creates a directory with mode 0700, which must not exist yet.
pub fn create_new_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// Creates a directory, or closes one that exists to other users.
///
/// # Errors
/// Also if it belongs to another user, or is a symbolic link.
pub fn require_private_directory(path: &Path) -> io::Result<()> {
    create_private_directory(path)?;
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    check_owner(&found)?;
    if found.permissions().mode() & FOREIGN != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
    }
    Ok(())
}

/// Opens a file for reading.
///
/// # Errors
/// Also if the path is a symbolic link or a directory.
pub fn open_without_link(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

/// Reads a file that no other user can have written.
///
/// # Errors
/// Also if one can, or the path is a symbolic link.
pub fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_without_link(path)?;
    let found = file.metadata()?;
    if found.nlink() != 1 {
        return Err(io::Error::other(format!("it has {} names (hard links), must have one", found.nlink())));
    }
    check_owner(&found)?;
    let mode = found.permissions().mode() & 0o777;
    if mode & FOREIGN != 0 {
        return Err(io::Error::other(format!("it has mode {mode:03o}, must be closed to the group and to others")));
    }
    let mut contents = Vec::new();
    io::Read::read_to_end(&mut file, &mut contents)?;
    Ok(contents)
}

fn check_owner(found: &Metadata) -> io::Result<()> {
    if found.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other(format!("it belongs to the user {}, not to that of the server", found.uid())))
}

/// Opens a file for reading and writing, and creates it if it is missing. Its mode is 0600 afterwards, unless it belongs to another
/// user, who then decides.
///
/// # Errors
/// Also if the path is a symbolic link, or the file has another name, by which it may be something else.
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link, must be a file"),
        _ => error,
    })?;
    let found = file.metadata()?;
    if found.is_file() && found.nlink() > 1 {
        let text = format!("it has {} names (hard links), must have one; remove the others", found.nlink());
        return Err(io::Error::other(text));
    }
    if found.permissions().mode() & FOREIGN != 0 {
        unless_foreign(file.set_permissions(Permissions::from_mode(FILE_MODE)))?;
    }
    Ok(file)
}

/// Creates the file empty if it is missing, and gives it mode 0600. A file that exists is not opened: closing it would
/// release the locks that this process holds on it.
pub fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => close_to_others(path),
        created => created.map(drop),
    }
}

/// Gives a file mode 0600, if it exists and belongs to this user.
pub fn close_to_others(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & FOREIGN != 0 => {
            unless_foreign(std::fs::set_permissions(path, Permissions::from_mode(FILE_MODE)))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Kubernetes lets a group write to the files of a volume that belong to another user.
fn unless_foreign(changed: io::Result<()>) -> io::Result<()> {
    match changed {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Replaces a file atomically and durably. It keeps its owner and mode; a new file has `mode`.
///
/// # Errors
/// Also if the owner cannot be kept; then the file is unchanged.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let draft = draft(path);
    // A crash may have left one.
    remove_if_present(&draft)?;
    let written = write_draft(path, &draft, contents, mode).and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        // The next replacement removes it, too.
        let _ = std::fs::remove_file(&draft);
    }
    written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// A name of 128 random bits.
pub fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Removes a file, if there is one.
pub fn remove_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_draft(path: &Path, draft: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(draft)?;
    file.write_all(contents)?;
    match std::fs::metadata(path) {
        Ok(old) => {
            give_to_owner_of(&file, &old)?;
            file.set_permissions(old.permissions())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.set_permissions(Permissions::from_mode(mode))?,
        Err(error) => return Err(error),
    }
    file.sync_all()
}

/// Gives a file the owner and the group of another one.
pub fn give_to_owner_of(file: &File, other: &Metadata) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) != (other.uid(), other.gid()) {
        fchown(file, Some(Uid::from_raw(other.uid())), Some(Gid::from_raw(other.gid())))?;
    }
    Ok(())
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".draft");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_others_can_read_is_closed_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        for old in [None, Some(0o644), Some(0o666), Some(0o400)] {
            let _ = std::fs::remove_file(&path);
            if let Some(old) = old {
                std::fs::write(&path, "kept").unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(old)).unwrap();
            }
            make_private(&path).unwrap();
            assert_eq!(mode(&path) & FOREIGN, 0, "{old:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), if old.is_some() { "kept" } else { "" });
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        open_private(&path).unwrap();
        assert_eq!((mode(&path), std::fs::read_to_string(&path).unwrap().as_str()), (0o600, "kept"));
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [target, link, dangling] = ["target", "link", "dangling"].map(|name| directory.path().join(name));
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        symlink(directory.path().join("new"), &dangling).unwrap();
        for path in [&link, &dangling] {
            let error = open_private(path).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        let other_name = directory.path().join("other_name");
        std::fs::hard_link(&target, &other_name).unwrap();
        let before = mode(&target);
        let error = open_private(&other_name).unwrap_err();
        assert!(error.to_string().contains("has 2 names"), "{error}");
        assert_eq!(mode(&target), before);
        std::fs::remove_file(other_name).unwrap();
        make_private(&link).unwrap();
        make_private(&dangling).unwrap();
        // The draft and the file are replaced, not followed.
        symlink(&target, draft(&link)).unwrap();
        replace(&link, b"new", 0o644).unwrap();
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "new");
        assert!(!link.is_symlink() && !directory.path().join("new").exists());
        assert_eq!((std::fs::read_to_string(&target).unwrap().as_str(), mode(&target)), ("precious", 0o644));
    }

    #[test]
    fn only_what_no_other_user_can_have_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("private");
        require_private_directory(&private).unwrap();
        let path = private.join("file");
        replace(&path, b"own", 0o600).unwrap();
        assert_eq!(read_private(&path).unwrap(), b"own");
        let refused = |path: &Path| read_private(path).unwrap_err().to_string();
        let link = private.join("link");
        symlink(&path, &link).unwrap();
        read_private(&link).unwrap_err();
        let other_name = private.join("other_name");
        std::fs::hard_link(&path, &other_name).unwrap();
        assert!(refused(&path).contains("2 names"));
        std::fs::remove_file(&other_name).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert!(refused(&path).contains("mode 620"));
        assert!(refused(&private).contains("not a file"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(&private, Permissions::from_mode(0o770)).unwrap();
        require_private_directory(&private).unwrap();
        assert_eq!(mode(&private), 0o700);
        require_private_directory(&path).unwrap_err();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
            assert!(refused(&path).contains("user 1234"));
            std::os::unix::fs::chown(&private, Some(1234), None).unwrap();
            require_private_directory(&private).unwrap_err();
        }
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        replace(&path, b"1", 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
        }
        let before = owner(&path);
        replace(&path, b"2", 0o600).unwrap();
        assert_eq!((mode(&path), owner(&path)), (0o640, before));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }
}
