//! Loading the JSON schemas of payloads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::Problems;
use super::handler::Handler;
use crate::model::{PayloadSchema, SCHEMA_BYTES_MAX};

impl Handler {
    /// Reads and compiles the schema, if there is one.
    pub(super) fn load_schema(&mut self, path: &str, problems: &mut Problems) {
        let Some(schema) = &self.schema else { return };
        let is_inline = schema.trim_start().starts_with('{');
        let text = if is_inline { Ok(schema.clone()) } else { read(Path::new(schema)) };
        let text = text.map_err(|error| format!("cannot be read: {error}"));
        match text.and_then(|text| PayloadSchema::parse(&text)) {
            Ok(loaded) => self.loaded_schema = Some(loaded),
            Err(reason) => {
                let shown = if is_inline { String::new() } else { format!("{schema:?}") };
                problems.add(format!("{path}.schema"), shown, reason);
            }
        }
    }
}

/// At most one byte more than a schema may have.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SCHEMA_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
