//! The file of named connections, which `lineshaft context` edits and all client commands read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::engine::ArgValueCompleter;
use serde::{Deserialize, Serialize};

use crate::files::{create_private_directory, replace};

use super::candidates::candidates;
use super::error::CliError;

/// Mode of the file: only its owner can read it.
const MODE: u32 = 0o600;

/// All contexts of the user.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that commands use by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default, rename = "context")]
    pub by_name: BTreeMap<String, Context>,
}

/// A connection. It has the paths of secrets, but no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
}

impl Contexts {
    /// Reads the file. Without a file there are no contexts.
    pub fn read() -> Result<Self, CliError> {
        path().map_or_else(|| Ok(Self::default()), |path| Self::read_from(&path))
    }

    fn read_from(path: &Path) -> Result<Self, CliError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(CliError::Usage(format!("failed to read `{}`: {error}", path.display()))),
        };
        toml::from_str(&text).map_err(|error| {
            CliError::Usage(format!("`{}` is not valid: {}", path.display(), error.to_string().trim_end()))
        })
    }

    pub fn write(&self) -> Result<(), CliError> {
        let path = path().ok_or_else(|| CliError::Usage("set HOME or XDG_CONFIG_HOME to save contexts".to_owned()))?;
        self.write_to(&path)
    }

    fn write_to(&self, path: &Path) -> Result<(), CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Usage(format!("`{}`: {error}", path.display()));
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        if let Some(directory) = path.parent() {
            create_private_directory(directory).map_err(|error| failed(&error))?;
        }
        replace(path, text.as_bytes(), MODE).map_err(|error| failed(&error))
    }

    pub fn get(&self, name: &str) -> Result<&Context, CliError> {
        self.by_name.get(name).ok_or_else(|| {
            let names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            let known =
                if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) };
            CliError::Usage(format!("there is no context {name:?}; {known}"))
        })
    }
}

/// Completes the name of a context.
pub fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let contexts = Contexts::read().unwrap_or_default().by_name;
        candidates(current, contexts.into_iter().map(|(name, context)| (name, context.server)).collect())
    })
}

/// `$XDG_CONFIG_HOME/lineshaft/contexts.toml`, or the same below `~/.config`.
fn path() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(config.join("lineshaft/contexts.toml"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn contexts_are_kept_in_a_file_of_their_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/contexts.toml");
        let mut contexts = Contexts::read_from(&path).unwrap();
        assert!(contexts.by_name.is_empty(), "there is no file");
        let context = Context { server: "https://a:1".to_owned(), token_file: Some("/t".into()), ..Context::default() };
        contexts.by_name.insert("prod".to_owned(), context.clone());
        contexts.current = Some("prod".to_owned());
        contexts.write_to(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let contexts = Contexts::read_from(&path).unwrap();
        assert_eq!((contexts.get("prod").unwrap(), contexts.current.as_deref()), (&context, Some("prod")));
        assert!(matches!(contexts.get("dev"), Err(CliError::Usage(text)) if text.ends_with("there are: prod")));
        std::fs::write(&path, "[context.x]\nserver = 1\n").unwrap();
        assert!(Contexts::read_from(&path).is_err());
    }
}
