//! What is wrong with a configuration: every problem with its field, value, limit and place.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the setting such as `pool[0].size`; empty when the text as a whole is broken.
    pub field: String,
    /// The value as given; empty when there is none.
    pub value: String,
    /// What is wrong with it, with the limit and the remedy.
    pub description: String,
    /// Where the value came from: `lineshaft.toml:12`, a variable of the environment, or empty.
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

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the configuration file `{path}`: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Settings are unknown, malformed, out of range or at odds with each other.
    #[error("{} in the configuration:\n{}", count(.0), lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The problems, when it is about settings.
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

/// Collects problems, so that the operator learns all of them at once.
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

    /// A value out of `min..=max` is a problem.
    pub(super) fn within<T: PartialOrd + fmt::Display + Copy>(
        &mut self,
        field: impl Into<String>,
        value: T,
        min: T,
        max: T,
    ) {
        // Written so that NaN, which is nowhere, is a problem.
        if !(min <= value && value <= max) {
            self.add(field, value, format!("must be {min} to {max}"));
        }
    }
}
