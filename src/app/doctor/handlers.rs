//! Whether the programs of process handlers exist and are executable.

use std::path::Path;

use crate::config::{Handler, Launch};
use crate::model::Secret;
use crate::runners::process;

use super::report::Finding;

pub(super) fn check(handlers: &[Handler]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut programs = 0;
    for handler in handlers {
        let Some(Launch::Process(launch)) = handler.launch() else { continue };
        programs += 1;
        let path = launch.env.get("PATH").map_or(process::DEFAULT_PATH, Secret::reveal);
        let program = launch.argv.first().map_or("", String::as_str);
        if let Err(why) = find_program(program, path) {
            let text = format!("handler `{}`: {why}", handler.name);
            findings.push(Finding::failure("handlers", text).with_advice("install the program, or correct `argv`"));
        }
    }
    if findings.is_empty() && programs > 0 {
        findings.push(Finding::ok(
            "handlers",
            format!("{programs} {} found", if programs == 1 { "program" } else { "programs" }),
        ));
    }
    findings
}

/// Finds a program in the same way as the process runner.
fn find_program(program: &str, path: &str) -> Result<(), String> {
    if program.contains('/') {
        return check_executable(Path::new(program)).map_err(|why| format!("{program} {why}"));
    }
    let found = path.split(':').any(|folder| check_executable(&Path::new(folder).join(program)).is_ok());
    if found { Ok(()) } else { Err(format!("{program} is not found in {path}")) }
}

fn check_executable(path: &Path) -> Result<(), &'static str> {
    let Ok(metadata) = std::fs::metadata(path) else { return Err("does not exist") };
    if !metadata.is_file() {
        return Err("is not a file");
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).map_err(|_| "is not executable by this user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_path_or_in_the_search_path() {
        assert_eq!(find_program("/bin/sh", ""), Ok(()));
        assert_eq!(find_program("sh", process::DEFAULT_PATH), Ok(()));
        assert_eq!(find_program("sh", "/nowhere"), Err("sh is not found in /nowhere".to_owned()));
        assert_eq!(find_program("/bin/nosuch", ""), Err("/bin/nosuch does not exist".to_owned()));
        assert_eq!(find_program("/bin/", ""), Err("/bin/ is not a file".to_owned()));
    }

    #[test]
    fn a_file_that_is_not_executable_is_reported() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = find_program(&file.path().display().to_string(), "").unwrap_err();
        assert!(why.contains("is not executable"), "{why}");
    }
}
