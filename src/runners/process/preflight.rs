//! What would make every attempt of a handler fail, found before its first one.

use std::ffi::{OsStr, OsString};
use std::fs::metadata;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::account::{Account, missing_capabilities};
use super::environment::{DEFAULT_PATH, environment, find_program};
use super::options::{OptionsError, ProcessOptions};

/// Checks the settings, the user, the program and the working directory.
///
/// # Errors
/// A text that names what is wrong.
pub fn preflight(options: &ProcessOptions) -> Result<(), String> {
    let environment = environment(options).map_err(|error| error.to_string())?;
    let program = options.argv.first().ok_or_else(|| OptionsError::NoProgram.to_string())?;
    if let Some(user) = options.user.as_deref() {
        Account::resolve(user, options.group.as_deref()).map_err(|error| error.to_string())?;
        let missing = missing_capabilities().map_err(|error| format!("cannot read the capabilities: {error}"))?;
        if !missing.is_empty() {
            return Err(OptionsError::NoCapabilities(missing.join(", ")).to_string());
        }
    }
    // What another user may do is found by the first attempt.
    let may_use = |path: &Path| options.user.is_some() || access(path, Access::EXEC_OK).is_ok();
    if let Some(directory) = &options.working_directory {
        check_directory(directory, may_use)?;
    }
    let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
    check_executable(&locate(program, path, options.working_directory.as_deref())?, may_use)
}

/// Where an attempt finds the program, as the shim does.
fn locate(program: &str, path: &OsStr, directory: Option<&Path>) -> Result<PathBuf, String> {
    let found = find_program(program, path);
    match directory {
        _ if found.is_absolute() => Ok(found),
        _ if !program.contains('/') => Err(format!("program {program} is not found in {}", path.display())),
        Some(directory) => Ok(directory.join(found)),
        None => Err(format!("program {program} is a relative path, but each attempt starts in a directory of its own")),
    }
}

fn check_directory(path: &Path, may_use: impl Fn(&Path) -> bool) -> Result<(), String> {
    let problem = match metadata(path) {
        Err(error) => format!("failed to find it: {error}"),
        Ok(found) if !found.is_dir() => "is not a directory".to_owned(),
        Ok(_) if !may_use(path) => "is not accessible to this user".to_owned(),
        Ok(_) => return Ok(()),
    };
    Err(format!("working_directory {}: {problem}", path.display()))
}

fn check_executable(path: &Path, may_use: impl Fn(&Path) -> bool) -> Result<(), String> {
    let problem = match metadata(path) {
        Err(_) => "does not exist",
        Ok(found) if !found.is_file() => "is not a file",
        Ok(_) if !may_use(path) => "is not executable by this user",
        Ok(_) => return Ok(()),
    };
    Err(format!("program {} {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn problem(program: &str, directory: Option<&Path>, path: Option<&str>) -> Option<String> {
        let env = path.map(|path| ("PATH".to_owned(), path.to_owned().into())).into_iter().collect();
        let working_directory = directory.map(Path::to_owned);
        let argv = vec![program.to_owned()];
        preflight(&ProcessOptions { argv, env, working_directory, ..ProcessOptions::default() }).err()
    }

    #[test]
    fn a_program_is_found_where_an_attempt_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tool");
        std::fs::write(&file, "").unwrap();
        let text = |problem: Option<String>| problem.unwrap_or_default();
        assert_eq!(problem("/bin/sh", None, None), None);
        assert_eq!(problem("sh", None, None), None);
        assert_eq!(text(problem("sh", None, Some("/nowhere"))), "program sh is not found in /nowhere");
        assert_eq!(text(problem("/bin/nosuch", None, None)), "program /bin/nosuch does not exist");
        assert_eq!(text(problem("/bin/", None, None)), "program /bin/ is not a file");
        assert!(text(problem("./tool", None, None)).contains("is a relative path"));
        assert!(text(problem("./tool", Some(directory.path()), None)).contains("is not executable"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(problem("./tool", Some(directory.path()), None), None);
    }

    #[test]
    fn a_working_directory_must_be_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = |directory: &str| problem("sh", Some(Path::new(directory)), None).unwrap_or_default();
        assert_eq!(text("/"), "");
        assert!(text("/nosuch").starts_with("working_directory /nosuch: failed to find it"), "{}", text("/nosuch"));
        assert!(text(file.path().to_str().unwrap()).ends_with("is not a directory"));
    }
}
