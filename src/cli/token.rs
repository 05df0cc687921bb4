//! `lineshaft token`: edits the file of API keys directly. A running server reloads the file.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::builder::styling::AnsiColor;
use clap::{Args, Subcommand};
use rustix::fs::{FlockOperation, flock};

use crate::files::{give_to_owner_of, open_private, replace};
use crate::model::api_key::GeneratedKey;
use crate::model::id::check_name;
use crate::model::key_file::{KeyEntry, KeyFile, KeyLimits};
use crate::model::{Clock, Grant, Role, RoleNames, SystemClock, Timestamp};

use super::error::{CliError, Exit};
use super::options::GlobalOptions;
use super::output;
use super::table::{Column, Table, TableArgs};
use super::time::parse_duration;
use super::view::{Cell, View};

#[derive(Clone, Debug, Args)]
pub struct TokenFile {
    /// Token file, the same as in the server's setting `auth.tokens_file`
    #[arg(long = "file", env = "LINESHAFT_AUTH__TOKENS_FILE", default_value = "tokens.toml", value_name = "PATH")]
    path: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a token and print it; it cannot be shown again
    Create {
        /// Name of the owner, unique in the file; appears in tasks and in the audit log
        name: String,
        /// Role, which decides the permitted calls. Can be repeated
        #[arg(long = "role", required = true, value_name = "ROLE", value_parser = Role::ALL.map(Role::name))]
        roles: Vec<String>,
        /// Namespace in which the role applies; "*" for all namespaces. Can be repeated
        #[arg(long = "namespace", required = true, value_name = "NAMESPACE")]
        namespaces: Vec<String>,
        /// Handler that a worker may offer, only with `--role worker`. Can be repeated [default: all handlers]
        #[arg(long = "handler", value_name = "HANDLER")]
        handlers: Vec<String>,
        /// Lifetime, such as 90d, at least 1s, until the year 9999 at most [default: no limit]
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        expires: Option<Duration>,
        /// Limit that replaces the one in [auth.limits], such as live_tasks=500. Can be repeated
        ///
        /// Names: submit_rate (tasks per second), submit_burst (tasks), live_tasks (tasks), live_payload_bytes (bytes),
        /// open_streams (streams).
        #[arg(long = "limit", value_name = "NAME=NUMBER")]
        limits: Vec<KeyLimits>,
        #[command(flatten)]
        file: TokenFile,
    },
    /// List tokens: names, roles and expiry; the tokens themselves are not stored
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        table: TableArgs,
        #[command(flatten)]
        file: TokenFile,
    },
    /// Revoke a token: remove it from the file, which running servers reload within two seconds
    Revoke {
        /// Name or ID of the token
        #[arg(value_name = "TOKEN")]
        name_or_id: String,
        #[command(flatten)]
        file: TokenFile,
    },
}

pub fn run(command: Command, options: &GlobalOptions) -> Exit {
    let result = match command {
        Command::Create { name, roles, namespaces, handlers, expires, limits, file } => {
            create(&file.path, &name, (RoleNames(roles), namespaces, handlers), expires, &limits)
        }
        Command::List { table, file } => list(&file.path, &table, options),
        Command::Revoke { name_or_id, file } => revoke(&file.path, &name_or_id),
    };
    match result {
        Ok(()) => Exit::Success,
        Err(error) => error.report(options.json()),
    }
}

fn create(
    path: &Path,
    name: &str,
    (roles, namespaces, handlers): (RoleNames, Vec<String>, Vec<String>),
    expires: Option<Duration>,
    limits: &[KeyLimits],
) -> Result<(), CliError> {
    check_name(name).map_err(|error| usage(format!("the name {name:?} {error}")))?;
    Grant::parse(&roles, &namespaces).and_then(|grant| grant.for_handlers(&handlers)).map_err(usage)?;
    let now = SystemClock.now();
    let expires_at = expires.map(|lifetime| now.after(lifetime));
    if expires.is_some_and(|lifetime| lifetime < Duration::from_secs(1)) {
        return Err(usage("--expires must be at least 1s".to_owned()));
    }
    if expires_at.is_some_and(|at| at > Timestamp::LAST_SHOWN) {
        return Err(usage(
            "--expires must end before the year 10000; leave it out for a token that does not expire".to_owned(),
        ));
    }
    let key = GeneratedKey::random().map_err(|error| usage(error.to_string()))?;
    edit(path, true, |file| {
        if file.keys.iter().any(|entry| entry.name == name) {
            return Err(usage(format!("a token named {name:?} already exists; revoke it or choose another name")));
        }
        let limits = limits.iter().fold(KeyLimits::default(), |all, one| all.overridden_by(one));
        let entry = KeyEntry::new(&key, name, (roles, namespaces), now, expires_at);
        file.keys.push(KeyEntry { handlers, limits, ..entry });
        Ok(())
    })?;
    output::stdout_line(&key.text);
    output::status(format_args!("Token {name:?} created in {}; copy it now, it cannot be shown again", path.display()));
    Ok(())
}

static COLUMNS: [Column<KeyEntry>; 8] = [
    Column::new("ID", 0, |entry, _| entry.id.as_str().into()),
    Column::new("NAME", 0, |entry, _| entry.name.as_str().into()),
    Column::new("ROLE", 0, |entry, _| entry.role.to_string().into()),
    Column::new("NAMESPACES", 1, |entry, _| entry.namespaces.join(",").into()),
    Column::new("HANDLERS", 4, |entry, _| entry.handlers.join(",").into()),
    Column::new("CREATED", 3, |entry, view| view.at(created(entry))),
    Column::new("EXPIRES", 2, |entry, view| match entry.expiry() {
        Ok(Some(at)) if at <= view.now() => {
            Cell::from(format!("{} (expired)", view.at(Some(at)).text)).colored(AnsiColor::Red)
        }
        Ok(at @ Some(_)) => view.at(at),
        _ => "never".into(),
    }),
    Column::new("LIMITS", 5, |entry, _| entry.limits.to_string().into()),
];

fn created(entry: &KeyEntry) -> Option<Timestamp> {
    let since_epoch = humantime::parse_rfc3339_weak(&entry.created_at).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::ZERO.after(since_epoch))
}

fn list(path: &Path, table: &TableArgs, options: &GlobalOptions) -> Result<(), CliError> {
    let table = Table::new(&COLUMNS, table)?;
    let mut file = read(path)?;
    let view = View::of_stdout(options.time);
    table.sort(&mut file.keys, &view);
    if options.json() {
        for entry in &file.keys {
            let text = serde_json::to_string(entry).map_err(|error| usage(error.to_string()))?;
            output::stdout_line(&text);
        }
    } else {
        let text = table.text(&file.keys, &view);
        if !text.is_empty() {
            output::stdout_line(text);
        }
    }
    Ok(())
}

fn revoke(path: &Path, name_or_id: &str) -> Result<(), CliError> {
    edit(path, false, |file| {
        let before = file.keys.len();
        file.keys.retain(|entry| entry.name != name_or_id && entry.id != name_or_id);
        if file.keys.len() == before {
            let (shown, list) = (path.display(), format!("lineshaft token list --file {}", path.display()));
            return Err(usage(format!("{shown} has no token with the name or ID {name_or_id:?}; run `{list}`")));
        }
        Ok(())
    })?;
    output::status(format_args!(
        "Token {name_or_id:?} removed from {}; a server with this tokens_file refuses it once its log has \"reloaded after \
         a change\"",
        path.display()
    ));
    Ok(())
}

fn usage(text: String) -> CliError {
    CliError::Usage(text)
}

fn read(path: &Path) -> Result<KeyFile, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::NotFound { "; pass its path with --file" } else { "" };
        usage(format!("failed to read the token file `{}`: {error}{hint}", path.display()))
    })?;
    KeyFile::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))
}

/// The file to replace: not a link to it, which others may use too.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(path.to_owned()),
        found => found,
    }
}

/// Edits the file under a lock and replaces it atomically.
fn edit(
    path: &Path,
    create_missing: bool,
    change: impl FnOnce(&mut KeyFile) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let failed = |error: io::Error| usage(format!("{}: {error}", path.display()));
    let path = &*target_of(path).map_err(failed)?;
    let lock = open_private(&path.with_extension("lock")).map_err(failed)?;
    if let Ok(found) = std::fs::metadata(path) {
        // The file's owner must be able to open a lock that root has created.
        give_to_owner_of(&lock, &found).map_err(failed)?;
    }
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let mut file = if create_missing && !path.exists() { KeyFile::default() } else { read(path)? };
    change(&mut file)?;
    replace(path, file.to_toml().as_bytes(), 0o600).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn tokens_are_created_and_revoked_in_a_file_with_mode_600() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let all_namespaces = || vec!["*".to_owned()];
        assert!(revoke(&path, "ci").is_err(), "the file does not exist");
        create(&path, "ci", ("submitter".into(), all_namespaces(), Vec::new()), None, &[]).unwrap();
        let limits = ["live_tasks=5", "submit_rate=1", "live_tasks=7"].map(|limit| limit.parse().unwrap());
        create(&path, "ops", ("admin".into(), all_namespaces(), Vec::new()), Some(Duration::from_secs(60)), &limits)
            .unwrap();
        assert!(
            create(&path, "ci", ("viewer".into(), all_namespaces(), Vec::new()), None, &[]).is_err(),
            "the name is taken"
        );
        assert!(create(&path, "c i", ("viewer".into(), all_namespaces(), Vec::new()), None, &[]).is_err());
        assert!(create(&path, "x", ("viewer".into(), vec!["a b".to_owned()], Vec::new()), None, &[]).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file = read(&path).unwrap();
        assert_eq!(file.keys.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["ci", "ops"]);
        assert_eq!(file.keys[1].limits.to_string(), "submit_rate=1,live_tasks=7");
        let resize = || vec!["resize".to_owned()];
        assert!(
            create(&path, "x", ("viewer".into(), all_namespaces(), resize()), None, &[]).is_err(),
            "no role for handlers"
        );
        create(&path, "images", ("worker".into(), all_namespaces(), resize()), None, &[]).unwrap();
        assert_eq!(read(&path).unwrap().keys[2].handlers, resize());
        revoke(&path, "images").unwrap();
        revoke(&path, &file.keys[1].id).unwrap();
        assert!(revoke(&path, "ops").is_err(), "it is already revoked");
        assert_eq!(read(&path).unwrap().keys.len(), 1);
    }

    #[test]
    fn the_file_that_a_link_points_to_is_edited() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("real.toml"), directory.path().join("link.toml"));
        std::os::unix::fs::symlink("real.toml", &link).unwrap();
        let all = || ("viewer".into(), vec!["*".to_owned()], Vec::new());
        assert!(create(&link, "ci", all(), None, &[]).is_err(), "the link points to nothing");
        std::fs::write(&target, "").unwrap();
        create(&link, "ci", all(), None, &[]).unwrap();
        assert!(link.is_symlink());
        assert_eq!(read(&target).unwrap().keys.len(), 1);
        revoke(&link, "ci").unwrap();
        assert!(link.is_symlink() && read(&target).unwrap().keys.is_empty());
    }

    #[test]
    fn the_file_and_its_lock_stay_with_the_owner_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        create(&path, "ci", ("submitter".into(), vec!["*".to_owned()], Vec::new()), None, &[]).unwrap();
        let lock = path.with_extension("lock");
        std::fs::remove_file(&lock).unwrap();
        // Only root may give files away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
        }
        let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
        let before = owner(&path);
        revoke(&path, "ci").unwrap();
        assert_eq!((owner(&path), owner(&lock)), (before, before));
    }
}
