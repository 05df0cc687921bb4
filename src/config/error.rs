//! Errors of a configuration: each problem with its field, value, limit and location.

use std::fmt;
use std::path::PathBuf;

use crate::model::{SecretUrl, secret::MASK};

/// One invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the setting, such as `pool[0].size`; empty if the file as a whole is malformed.
    pub field: String,
    /// The value as written; empty if there is none or if it may be secret.
    pub value: String,
    /// The rule that the value breaks, and how to correct it.
    pub description: String,
    /// Where the value is set: `lineshaft.toml:12`, an environment variable, or the command line; empty for a default.
    pub location: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.location.is_empty() {
            write!(f, "{}: ", self.location)?;
        }
        if !self.field.is_empty() {
            f.write_str(&self.field)?;
            if !self.value.is_empty() {
                write!(f, " = {}", self.value)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.description)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("failed to read the configuration file `{path}`: {source}", path = path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Settings are unknown, malformed, out of range, or contradict each other.
    #[error("{} in the configuration:\n{}", count(.0), lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The invalid settings; empty if the file cannot be read.
    #[cfg(test)]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// Adds a problem if the URL comes from a dump without its secrets.
pub(super) fn check_not_masked(field: &str, url: Option<&SecretUrl>, problems: &mut Problems) {
    if url.is_some_and(|url| url.reveal().contains(MASK)) {
        problems.add(field, "", "has the mask that `config dump` prints instead of secrets; set the whole URL");
    }
}

/// Collects problems, so that all of them are reported together.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, field: impl Into<String>, value: impl fmt::Display, description: impl Into<String>) {
        self.0.push(Problem {
            field: field.into(),
            value: value.to_string(),
            description: description.into(),
            location: String::new(),
        });
    }

    /// Adds a problem if the value is not in `min..=max`.
    pub(super) fn check_range<T: PartialOrd + fmt::Display + Copy>(
        &mut self,
        field: impl Into<String>,
        value: T,
        min: T,
        max: T,
    ) {
        // Written so that NaN is a problem.
        if !(min <= value && value <= max) {
            self.add(field, value, format!("must be {min} to {max}"));
        }
    }
}
