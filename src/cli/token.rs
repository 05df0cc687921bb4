//! `lineshaft token …`: the file of API keys. Works on the file itself; a running server sees the change.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use rustix::fs::{FlockOperation, flock};

use crate::model::api_key::GeneratedKey;
use crate::model::id::check_name;
use crate::model::key_file::{KeyEntry, KeyFile, KeyLimits};
use crate::model::{Clock, Grant, Role, SystemClock};

use super::connect::{Exit, Problem};
use super::{Global, say, show};

/// Where the file is.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The file of tokens, as `auth.tokens_file` of the server's configuration names it.
    #[arg(long, env = "LINESHAFT_AUTH__TOKENS_FILE", default_value = "tokens.toml", value_name = "PATH")]
    file: PathBuf,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token and print it; it is not shown again.
    Create {
        /// Whose it is; shown in tasks and in the audit log.
        name: String,
        /// What it may do.
        #[arg(long, value_parser = Role::ALL.map(Role::name))]
        role: String,
        /// Where; repeat it for several, "*" is everywhere.
        #[arg(long = "namespace", required = true, value_name = "NAMESPACE")]
        namespaces: Vec<String>,
        /// How long it is good for, such as 90d; default: until it is revoked.
        #[arg(long, value_parser = humantime::parse_duration, value_name = "SPAN")]
        expires: Option<Duration>,
        /// A bound of its own in the place of the one in [auth.limits], such as live_tasks=500; repeat it for
        /// several: submit_rate, submit_burst, live_tasks, live_payload_bytes, open_streams.
        #[arg(long = "limit", value_name = "NAME=NUMBER")]
        limits: Vec<KeyLimits>,
        /// Where the file is.
        #[command(flatten)]
        place: Place,
    },
    /// List tokens; the tokens themselves are known to nobody.
    List {
        /// Where the file is.
        #[command(flatten)]
        place: Place,
    },
    /// End a token at once.
    Revoke {
        /// Its name or id.
        #[arg(value_name = "TOKEN")]
        which: String,
        /// Where the file is.
        #[command(flatten)]
        place: Place,
    },
}

/// Carries out a command.
pub fn run(command: Command, global: &Global) -> Exit {
    let done = match command {
        Command::Create { name, role, namespaces, expires, limits, place } => {
            create(&place.file, &name, (&role, namespaces), expires, &limits)
        }
        Command::List { place } => list(&place.file, global.wants_json()),
        Command::Revoke { which, place } => revoke(&place.file, &which),
    };
    match done {
        Ok(()) => Exit::Ok,
        Err(problem) => {
            problem.tell();
            problem.exit()
        }
    }
}

fn create(
    path: &Path,
    name: &str,
    grant: (&str, Vec<String>),
    expires: Option<Duration>,
    limits: &[KeyLimits],
) -> Result<(), Problem> {
    check_name(name).map_err(|error| usage(format!("the name {name:?} {error}")))?;
    Grant::parse(grant.0, &grant.1).map_err(usage)?;
    if expires.is_some_and(|span| span < Duration::from_secs(1)) {
        return Err(usage("--expires must be 1s at least".to_owned()));
    }
    let key = GeneratedKey::random().map_err(|error| usage(error.to_string()))?;
    change(path, true, |file| {
        if file.keys.iter().any(|entry| entry.name == name) {
            return Err(usage(format!("there is a token named {name:?} already; revoke it, or choose another name")));
        }
        let limits = limits.iter().fold(KeyLimits::default(), |all, one| all.overridden_by(one));
        let entry = KeyEntry::new(&key, name, grant, SystemClock.now(), expires);
        file.keys.push(KeyEntry { limits, ..entry });
        Ok(())
    })?;
    say::line(&key.text);
    say::talk(format_args!("token {name:?} is in {}; it is not shown again", path.display()));
    Ok(())
}

fn list(path: &Path, as_json: bool) -> Result<(), Problem> {
    let file = read(path)?;
    if as_json {
        for entry in &file.keys {
            let text = serde_json::to_string(entry).map_err(|error| usage(error.to_string()))?;
            say::line(&text);
        }
        return Ok(());
    }
    let now = SystemClock.now();
    let row = |entry: &KeyEntry| {
        let over = matches!(entry.expiry(), Ok(Some(at)) if at <= now);
        let ends = entry.expires_at.clone().unwrap_or_else(|| "never".to_owned());
        let ends = if over { format!("{ends} (over)") } else { ends };
        let namespaces = entry.namespaces.join(",");
        let limits = entry.limits.to_string();
        [entry.id.clone(), entry.name.clone(), entry.role.clone(), namespaces, entry.created_at.clone(), ends, limits]
    };
    let rows: Vec<_> = file.keys.iter().map(row).collect();
    say::line(show::table(["ID", "NAME", "ROLE", "NAMESPACES", "CREATED", "EXPIRES", "LIMITS"], &rows));
    Ok(())
}

fn revoke(path: &Path, token: &str) -> Result<(), Problem> {
    change(path, false, |file| {
        let before = file.keys.len();
        file.keys.retain(|entry| entry.name != token && entry.id != token);
        if file.keys.len() == before {
            return Err(usage(format!("there is no token with the name or id {token:?}")));
        }
        Ok(())
    })?;
    say::talk("revoked; a running server refuses it within two seconds");
    Ok(())
}

fn usage(text: String) -> Problem {
    Problem::Usage(text)
}

fn read(path: &Path) -> Result<KeyFile, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    KeyFile::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))
}

/// Changes the file: alone, and so that a reader sees the old one or the new one.
fn change(
    path: &Path,
    may_begin: bool,
    change: impl FnOnce(&mut KeyFile) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let failed = |error: io::Error| usage(format!("{}: {error}", path.display()));
    let lock = path.with_extension("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let mut file = if may_begin && !path.exists() { KeyFile::default() } else { read(path)? };
    change(&mut file)?;
    replace(path, &file.to_toml()).map_err(failed)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let permissions = std::fs::metadata(path).map(|found| found.permissions()).ok();
    // A draft that was left behind may have another mode.
    let _ = std::fs::remove_file(&draft);
    let mut written = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
    written.write_all(text.as_bytes())?;
    if let Some(permissions) = permissions {
        written.set_permissions(permissions)?;
    }
    written.sync_all()?;
    std::fs::rename(&draft, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_made_and_revoked_in_a_file_that_only_its_owner_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let everywhere = || vec!["*".to_owned()];
        assert!(revoke(&path, "ci").is_err(), "there is no file yet");
        create(&path, "ci", ("submitter", everywhere()), None, &[]).unwrap();
        let limits = ["live_tasks=5", "submit_rate=1", "live_tasks=7"].map(|limit| limit.parse().unwrap());
        create(&path, "ops", ("admin", everywhere()), Some(Duration::from_secs(60)), &limits).unwrap();
        assert!(create(&path, "ci", ("viewer", everywhere()), None, &[]).is_err(), "the name is taken");
        assert!(create(&path, "c i", ("viewer", everywhere()), None, &[]).is_err());
        assert!(create(&path, "x", ("viewer", vec!["a b".to_owned()]), None, &[]).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file = read(&path).unwrap();
        assert_eq!(file.keys.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["ci", "ops"]);
        assert_eq!(file.keys[1].limits.to_string(), "submit_rate=1,live_tasks=7");
        revoke(&path, &file.keys[1].id).unwrap();
        assert!(revoke(&path, "ops").is_err(), "it has gone");
        assert_eq!(read(&path).unwrap().keys.len(), 1);
    }
}
