//! The environment of a process, and where its program is found.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::options::{OptionsError, ProcessOptions};
use crate::runners::environment::registered;

/// Marks every process of one server run.
pub(super) const INSTANCE_VARIABLE: &str = "LINESHAFT_INSTANCE";
/// Paths of the pipes for reports and for the result.
pub(super) const REPORT_VARIABLES: [(&str, &str); 2] =
    [("LINESHAFT_REPORT", "/proc/self/fd/3"), ("LINESHAFT_RESULT", "/proc/self/fd/4")];
/// Path of the directory for artifacts.
pub(super) const ARTIFACTS_VARIABLE: &str = "LINESHAFT_ARTIFACTS";
/// Search path for programs, and `PATH` of a process unless its handler sets another.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that are the same for every attempt of a handler.
pub(super) fn environment(options: &ProcessOptions) -> Result<BTreeMap<OsString, OsString>, OptionsError> {
    let mut environment = BTreeMap::from([(OsString::from("PATH"), OsString::from(DEFAULT_PATH))]);
    environment.extend(registered(&options.env_pass, &options.env)?);
    Ok(environment)
}

/// Resolves a program to an absolute path if it exists in `path`; otherwise returns it unchanged.
pub(super) fn find_program(program: &str, path: &OsStr) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let directories = path.as_bytes().split(|byte| *byte == b':').filter(|directory| directory.starts_with(b"/"));
    let mut candidates = directories.map(|directory| Path::new(OsStr::from_bytes(directory)).join(program));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| PathBuf::from(program))
}
