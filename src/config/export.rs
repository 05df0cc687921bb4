//! Section `[handler.export]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// `[handler.export]`: rows that a payload can have written to a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Name of a `[[connection]]`. Required.
    pub connection: String,
    /// Table or view, with or without a schema, such as "lease" or "park.lease". Either this or `query` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// SELECT without parameters, in the SQL of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Columns that a file can have, in this order. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Columns by which a payload can select rows, also if they are not in `columns`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Font files, OpenType or TrueType, for characters of PDF files that the built-in font lacks, such as Chinese ones. They are
    /// read at the start. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fonts: Vec<PathBuf>,
}

impl Export {
    /// Checks everything but the name of the connection.
    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if self.table.is_some() == self.query.is_some() {
            problems.add(path, "", "must have either `table` or `query`");
        }
        for (field, text) in [("table", &self.table), ("query", &self.query)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                problems.add(format!("{path}.{field}"), "", "must not be empty");
            }
        }
        for (field, names) in [("columns", &self.columns), ("filters", &self.filters)] {
            for (index, name) in names.iter().enumerate() {
                if names[..index].contains(name) {
                    problems.add(format!("{path}.{field}[{index}]"), format!("{name:?}"), "is named before");
                }
            }
        }
    }
}
