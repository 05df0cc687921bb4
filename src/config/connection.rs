//! Section `[[connection]]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use crate::model::id;

/// `[[connection]]`: a database that export handlers read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Name: 1 to 64 letters, digits or . _ : - characters. Required.
    pub name: String,
    /// File of a SQLite database. Either this or `postgres` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<PathBuf>,
    /// URL of a PostgreSQL database, without a password, such as "postgresql://export@db.example.com/park". The connection to
    /// another machine is encrypted, and the certificate of the server is checked, unless the URL has `sslmode=disable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    /// For `postgres`: file with the password. It must be readable at the start, and is read for each connection. Default: no password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// For `postgres`: PEM file with the CAs of the server. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl Connection {
    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = id::check_name(&self.name) {
            problems.add(format!("{path}.name"), format!("{:?}", self.name), error.to_string());
        }
        match (&self.sqlite, &self.postgres) {
            (Some(_), None) => {}
            (None, Some(url)) => check_url(&format!("{path}.postgres"), url, problems),
            _ => problems.add(path, "", "must have either `sqlite` or `postgres`"),
        }
        for (field, file) in [("sqlite", &self.sqlite), ("password_file", &self.password_file), ("ca", &self.ca)] {
            let field_path = format!("{path}.{field}");
            if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
                problems.add(field_path, "\"\"", "must not be empty");
            } else if field != "sqlite" && file.is_some() && self.postgres.is_none() {
                problems.add(field_path, "", "is only allowed with `postgres`");
            }
        }
    }
}

/// The value is not shown, since it can have a password.
#[cfg(feature = "export")]
fn check_url(path: &str, url: &str, problems: &mut Problems) {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return problems.add(path, "", "must be a URL such as \"postgresql://user@host/database\"");
    }
    match url.parse::<tokio_postgres::Config>() {
        Ok(config) if config.get_password().is_some() => {
            problems.add(path, "", "must not have a password; put it into a file and set `password_file`");
        }
        Ok(_) => {}
        Err(error) => {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            problems.add(path, "", format!("is not a URL of PostgreSQL: {reason}"));
        }
    }
}

/// Only an export uses it.
#[cfg(not(feature = "export"))]
fn check_url(_: &str, _: &str, _: &mut Problems) {}

#[cfg(all(test, feature = "export"))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_checked_without_showing_its_url() {
        for (text, expected) in [
            ("sqlite = \"park.db\"", ""),
            ("postgres = \"postgresql://export@db/park?sslmode=require\"\npassword_file = \"p\"\nca = \"ca.pem\"", ""),
            ("", "must have either `sqlite` or `postgres`"),
            ("sqlite = \"a\"\npostgres = \"postgres://b\"", "must have either"),
            ("sqlite = \"\"", "c.sqlite = \"\": must not be empty"),
            ("sqlite = \"a\"\nca = \"b\"", "c.ca: is only allowed with `postgres`"),
            ("postgres = \"host=hunter2\"", "c.postgres: must be a URL such as"),
            ("postgres = \"postgres://me:hunter2@db/\"", "c.postgres: must not have a password"),
            (
                "postgres = \"postgres://hunter2@db/?sslmode=verify-full\"",
                "c.postgres: is not a URL of PostgreSQL: invalid value for option `sslmode`",
            ),
        ] {
            let connection: Connection = toml::from_str(&format!("name = \"park\"\n{text}")).unwrap();
            let mut problems = Problems::default();
            connection.check("c", &mut problems);
            let found = problems.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{text}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
}
