//! The declarative configuration: one file instead of variables (`OTEL_CONFIG_FILE`).
//!
//! `substitution` puts variables into its values, `document` is what may stand in it, `provider` makes the
//! parts of the settings from it. What this server cannot do is an error, not a silence.

mod document;
mod provider;
mod resource;
mod substitution;
#[cfg(test)]
mod tests;

use std::io;

use serde_json::Value;

use super::{Settings, SettingsError, Variables, variables};
use crate::telemetry::propagation::Formats;

use document::{Document, Propagator};

/// Bytes of a file. The longest example of the project OpenTelemetry has 60 kB, most of them comments.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file. Variables count only where it refers to them.
pub(super) fn read(path: &str, from: &Variables) -> Result<Settings, SettingsError> {
    let text = text_of(path).map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    parse(&text, from).map_err(|reason| SettingsError::Malformed { path: path.to_owned(), reason })
}

/// Neither a device, which may have no end, nor a pipe, which may have no writer.
fn text_of(path: &str) -> io::Result<String> {
    let file = std::fs::metadata(path)?;
    if !file.is_file() || file.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("expected a file of at most {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path)
}

fn parse(text: &str, from: &Variables) -> Result<Settings, String> {
    // Those of YAML 1.1 know `n`, `on` and the like as well.
    let options = serde_saphyr::options! { strict_booleans: true };
    let mut tree: Value = serde_saphyr::from_str_with_options(text, options)
        // Without the lines themselves: a header in them may be a secret.
        .map_err(|error| error.without_snippet().to_string())?;
    substitution::substitute(&mut tree, from)?;
    let mut warnings = set_aside(&mut tree);
    let document: Document =
        serde_path_to_error::deserialize(tree).map_err(|error| format!("{}: {}", error.path(), why(error.inner())))?;
    check_version(&document.file_format)?;
    let propagators = propagators(document.propagator.unwrap_or_default(), &mut warnings);
    let attributes = resource::attributes(document.resource.unwrap_or_default())?;
    let log_level = document.log_level.as_deref().map(log_level).transpose()?;
    let silent = Settings { propagators, log_level, attributes, warnings, ..Settings::silent() };
    if document.disabled.is_some_and(|disabled| disabled.0) {
        return Ok(Settings { disabled: true, ..silent });
    }
    let limits = document.attribute_limits.unwrap_or_default();
    let mut settings = silent;
    if let Some(traces) = document.tracer_provider {
        provider::traces(&mut settings, traces, limits)?;
    }
    if let Some(metrics) = document.meter_provider {
        provider::metrics(&mut settings, metrics)?;
    }
    if let Some(logs) = document.logger_provider {
        provider::logs(&mut settings, logs, limits)?;
    }
    Ok(settings)
}

/// Without the value, which a variable may have brought.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(", expected ") {
        Some((said, expected)) if said.starts_with("invalid ") => format!("expected {expected}"),
        _ => text,
    }
}

/// Takes away what is about things that there are none of here, and says so.
fn set_aside(tree: &mut Value) -> Vec<String> {
    let Value::Object(fields) = tree else { return Vec::new() };
    let mut warnings = Vec::new();
    fields.retain(|field, _| {
        let known = Document::FIELDS.contains(&field.as_str());
        if !known {
            warnings.push(format!("{field} in OTEL_CONFIG_FILE is ignored: there is nothing here that it is about"));
        }
        known
    });
    warnings
}

/// Minor versions only add, and what is not known is refused where it stands.
fn check_version(version: &str) -> Result<(), String> {
    if version == "1" || version.starts_with("1.") {
        return Ok(());
    }
    Err(format!("file_format: {version:?} is not supported; expected \"1.0\" or another version 1"))
}

fn propagators(said: Propagator, warnings: &mut Vec<String>) -> Formats {
    let named = said.composite.unwrap_or_default().into_iter().flat_map(std::collections::BTreeMap::into_keys);
    let listed = said.composite_list.unwrap_or_default();
    let all: Vec<String> = named.chain(listed.split(',').map(str::to_owned)).collect();
    let (found, unknown) = variables::propagators_of(&all.join(","));
    warnings.extend(unknown.map(|why| format!("a part of propagator in OTEL_CONFIG_FILE is ignored: {why}")));
    found
}

/// A severity such as `debug2`, as a level of the log.
fn log_level(severity: &str) -> Result<&'static str, String> {
    let levels = [("trace", "trace"), ("debug", "debug"), ("info", "info"), ("warn", "warn"), ("error", "error")];
    let all = levels.into_iter().chain([("fatal", "error")]);
    let bare = severity.trim_end_matches(['2', '3', '4']);
    let found = all.into_iter().find(|(name, _)| *name == bare).map(|(_, level)| level);
    found.ok_or_else(|| {
        "log_level: expected trace, debug, info, warn, error or fatal, or one of them with 2, 3 or 4".to_owned()
    })
}
