//! Where each setting comes from: a line of the file, an environment variable, or the command line.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::is_shown;

/// Longer values are not shown in messages.
const SHOWN_BYTES_MAX: usize = 80;

/// The location of each setting, by its path, such as `pool[0].size`.
#[derive(Default)]
pub(super) struct Provenance {
    locations: BTreeMap<String, String>,
    /// Spans of the keys in the file.
    keys: Vec<(Range<usize>, String)>,
    /// Spans of the values in the file.
    values: Vec<(Range<usize>, String)>,
}

impl Provenance {
    /// Locates the settings of a TOML text. Of a malformed text, it locates the part that can be parsed.
    pub(super) fn of_file(name: &str, text: &str) -> Self {
        let mut provenance = Self::default();
        let (table, _) = DeTable::parse_recoverable(text);
        provenance.visit_table(&Lines::new(name, text), "", table.get_ref());
        provenance
    }

    /// Replaces the location of `field`.
    pub(super) fn set(&mut self, field: &str, location: impl Into<String>) {
        self.locations.insert(field.to_owned(), location.into());
    }

    /// The location of `field`, or of the innermost table around it that has one; empty for a default.
    pub(super) fn location_of(&self, field: &str) -> String {
        let mut path = field;
        loop {
            if let Some(location) = self.locations.get(path) {
                return location.clone();
            }
            let Some(end) = path.rfind(['.', '[']) else { return String::new() };
            path = &path[..end];
        }
    }

    /// The field whose key covers the span, or else the innermost field whose value covers it.
    pub(super) fn field_at(&self, span: &Range<usize>) -> String {
        let covers = |(range, _): &&(Range<usize>, String)| range.start <= span.start && span.end <= range.end;
        let key = self.keys.iter().find(covers);
        let innermost = || self.values.iter().filter(covers).min_by_key(|(range, _)| range.len());
        key.or_else(innermost).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// The value of `field` as written in the text; empty if it is a table, long, possibly secret, or missing.
    pub(super) fn value_of(&self, field: &str, text: &str) -> String {
        let value = self.values.iter().find(|(_, path)| path == field && is_shown(field));
        let shown = value.and_then(|(range, _)| text.get(range.clone())).unwrap_or_default();
        let plain = shown.len() <= SHOWN_BYTES_MAX && !shown.contains(['\n', '[', '{', '=']);
        if plain { shown.to_owned() } else { String::new() }
    }

    fn visit_table(&mut self, lines: &Lines<'_>, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            self.locations.insert(path.clone(), lines.location(key.span().start));
            self.keys.push((key.span(), path.clone()));
            self.visit(lines, path, value);
        }
    }

    fn visit(&mut self, lines: &Lines<'_>, path: String, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.visit_table(lines, &path, table),
            DeValue::Array(array) => {
                for (index, item) in array.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.locations.insert(path.clone(), lines.location(item.span().start));
                    self.visit(lines, path, item);
                }
            }
            _ => {}
        }
        self.values.push((value.span(), path));
    }
}

/// The lines of a file.
pub(super) struct Lines<'a> {
    name: &'a str,
    /// Byte offsets.
    ends: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(name: &'a str, text: &str) -> Self {
        Self { name, ends: text.match_indices('\n').map(|(end, _)| end).collect() }
    }

    /// `file:line` of a byte offset.
    pub(super) fn location(&self, offset: usize) -> String {
        format!("{}:{}", self.name, 1 + self.ends.partition_point(|end| *end < offset))
    }
}
