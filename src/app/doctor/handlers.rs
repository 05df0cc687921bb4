//! Whether the programs of process handlers are there and may be run.

use std::path::Path;

use crate::config::{Handler, Launch};
use crate::runners::process;

use super::report::Finding;

pub(super) fn examine(handlers: &[Handler]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut programs = 0;
    for handler in handlers {
        let Some(Launch::Process(launch)) = handler.launch() else { continue };
        programs += 1;
        let path = launch.env.get("PATH").map_or(process::DEFAULT_PATH, String::as_str);
        let program = launch.argv.first().map_or("", String::as_str);
        if let Err(why) = runnable(program, path) {
            let text = format!("`{}` cannot be run: {why}", handler.name);
            findings.push(Finding::bad("handlers", text).advise("install the program, or correct `argv`"));
        }
    }
    if findings.is_empty() && programs > 0 {
        findings.push(Finding::well("handlers", format!("{programs} programs are there")));
    }
    findings
}

/// Finds a program as the process runner does.
fn runnable(program: &str, path: &str) -> Result<(), String> {
    if program.contains('/') {
        return executable(Path::new(program)).map_err(|why| format!("{program} {why}"));
    }
    let found = path.split(':').any(|folder| executable(&Path::new(folder).join(program)).is_ok());
    if found { Ok(()) } else { Err(format!("{program} is in none of {path}")) }
}

fn executable(path: &Path) -> Result<(), &'static str> {
    let Ok(about) = std::fs::metadata(path) else { return Err("does not exist") };
    if !about.is_file() {
        return Err("is no file");
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).map_err(|_| "may not be run by this user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_path_or_in_the_search_path() {
        assert_eq!(runnable("/bin/sh", ""), Ok(()));
        assert_eq!(runnable("sh", process::DEFAULT_PATH), Ok(()));
        assert_eq!(runnable("sh", "/nowhere"), Err("sh is in none of /nowhere".to_owned()));
        assert_eq!(runnable("/bin/nosuch", ""), Err("/bin/nosuch does not exist".to_owned()));
        assert_eq!(runnable("/bin/", ""), Err("/bin/ is no file".to_owned()));
    }

    #[test]
    fn a_file_that_is_no_program_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = runnable(&file.path().display().to_string(), "").unwrap_err();
        assert!(why.contains("may not be run"), "{why}");
    }
}
