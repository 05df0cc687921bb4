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
use serde_path_to_error::Segment;

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
    let mut warnings = match &mut tree {
        Value::Object(fields) => {
            fields.values_mut().try_for_each(|value| substitution::substitute(value, from))?;
            set_aside(fields)
        }
        _ => return Err("expected a mapping with file_format".to_owned()),
    };
    let document: Document = serde_path_to_error::deserialize(&tree).map_err(|error| {
        let (path, is_text) = (error.path(), at(&tree, error.path()).is_none_or(Value::is_string));
        format!("{path}: {}", why(error.inner(), is_text))
    })?;
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

/// What stands at a place.
fn at<'a>(tree: &'a Value, path: &serde_path_to_error::Path) -> Option<&'a Value> {
    path.iter().try_fold(tree, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { variant } => value.get(variant),
        Segment::Unknown => None,
    })
}

/// Without the value, which a variable may have brought. Fields and variants that are keys of the file are shown,
/// but a variant may also be the value itself.
fn why(error: &serde_json::Error, is_text: bool) -> String {
    let text = error.to_string();
    // The last one: the value may hold such words too.
    match text.rsplit_once(", expected ") {
        Some((said, expected)) if said.starts_with("invalid ") || is_text && said.starts_with("unknown variant ") => {
            format!("expected {expected}")
        }
        _ => text,
    }
}

/// Takes away what is about things that there are none of here, and says so.
fn set_aside(fields: &mut serde_json::Map<String, Value>) -> Vec<String> {
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
    Err("file_format: expected \"1.0\" or another version 1".to_owned())
}

fn propagators(said: Propagator, warnings: &mut Vec<String>) -> Formats {
    let named = said.composite.unwrap_or_default().into_iter().flat_map(std::collections::BTreeMap::into_keys);
    let (named, listed) = (named.collect::<Vec<_>>().join(","), said.composite_list.unwrap_or_default());
    let mut ignored = |why| warnings.push(format!("a part of propagator in OTEL_CONFIG_FILE is ignored: {why}"));
    variables::propagators_of(&named).1.into_iter().for_each(&mut ignored);
    if variables::propagators_of(&listed).1.is_some() {
        // Not which: a variable may have brought it.
        ignored("composite_list has one that is not known".to_owned());
    }
    variables::propagators_of(&format!("{named},{listed}")).0
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
