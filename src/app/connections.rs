//! Reads the files of the connections, so that one that is missing is found at the start and not by a task.

use std::path::Path;

use crate::config::Config;

use super::error::InvalidSetting;

/// Blocks. A connection reads its files again, so that they can be replaced.
///
/// # Errors
/// [`InvalidSetting`].
pub(super) fn check(config: &Config) -> Result<(), InvalidSetting> {
    for (index, connection) in config.connections.iter().enumerate() {
        let password = connection.password_file.as_deref().map(read_text);
        let ca = connection.ca.as_deref().map(read_ca);
        for (field, read) in [("password_file", password), ("ca", ca)] {
            if let Some(Err(description)) = read {
                return Err(InvalidSetting { setting: format!("connection[{index}].{field}"), description });
            }
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<(), String> {
    let read = std::fs::read_to_string(path).map(drop);
    read.map_err(|error| format!("failed to read `{}`: {error}", path.display()))
}

#[cfg(feature = "export")]
fn read_ca(path: &Path) -> Result<(), String> {
    crate::runners::export::check_ca(path)
}

/// Only an export uses it.
#[cfg(not(feature = "export"))]
fn read_ca(path: &Path) -> Result<(), String> {
    read_text(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_setting() {
        let directory = tempfile::tempdir().unwrap();
        let (password, missing) = (directory.path().join("password"), directory.path().join("missing"));
        std::fs::write(&password, "secret\n").unwrap();
        let problem = |password_file: Option<&Path>, ca: Option<&Path>| {
            let url = "postgresql://me@localhost/park";
            let mut config: Config =
                toml::from_str(&format!("[[connection]]\nname = \"park\"\npostgres = \"{url}\"")).unwrap();
            config.connections[0].password_file = password_file.map(Path::to_owned);
            config.connections[0].ca = ca.map(Path::to_owned);
            check(&config).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(problem(Some(&password), None), "");
        let error = problem(Some(&missing), None);
        let expected = format!("connection[0].password_file: failed to read `{}`: No such file", missing.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(problem(Some(directory.path()), None).contains("Is a directory"));
        assert!(problem(None, Some(&missing)).starts_with("connection[0].ca: failed to read"));
        #[cfg(feature = "export")]
        assert!(problem(None, Some(&password)).ends_with("has no certificate in PEM form"));
    }
}
