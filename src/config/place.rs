//! Where each setting came from: a line of the file, a variable, a flag.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of a value that are worth showing beside its field.
const SHOWN_BYTES_MAX: usize = 80;

/// Paths such as `pool[0].size`, each with where its value stands.
#[derive(Default)]
pub(super) struct Places {
    by_field: BTreeMap<String, String>,
    keys: Vec<(Range<usize>, String)>,
    values: Vec<(Range<usize>, String)>,
}

impl Places {
    /// Those of a TOML text; of a text that cannot be parsed, those of the part that can.
    pub(super) fn of_file(name: &str, text: &str) -> Self {
        let mut places = Self::default();
        let (table, _) = DeTable::parse_recoverable(text);
        places.visit_table(name, text, "", table.get_ref());
        places
    }

    /// Notes that the value of `field` comes from `place` and from nowhere else.
    pub(super) fn set(&mut self, field: &str, place: impl Into<String>) {
        self.by_field.insert(field.to_owned(), place.into());
    }

    /// Where `field`, or the nearest table around it, stands; empty when it is a default.
    pub(super) fn find(&self, field: &str) -> String {
        let mut path = field;
        loop {
            if let Some(place) = self.by_field.get(path) {
                return place.clone();
            }
            let Some(end) = path.rfind(['.', '[']) else { return String::new() };
            path = &path[..end];
        }
    }

    /// The field whose key or value covers the span; the innermost when there are several.
    pub(super) fn field_at(&self, span: &Range<usize>) -> String {
        let covers = |(range, _): &&(Range<usize>, String)| range.start <= span.start && span.end <= range.end;
        let key = self.keys.iter().find(covers);
        let innermost = || self.values.iter().filter(covers).min_by_key(|(range, _)| range.len());
        key.or_else(innermost).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// The value of `field` as it stands in the text; empty when it is a table, long, or not there.
    pub(super) fn value_of(&self, field: &str, text: &str) -> String {
        // What handlers get in their environment may be secret.
        let secret = field.split('.').any(|part| part == "env");
        let value = self.values.iter().find(|(_, path)| path == field && !secret);
        let shown = value.and_then(|(range, _)| text.get(range.clone())).unwrap_or_default();
        let plain = shown.len() <= SHOWN_BYTES_MAX && !shown.contains(['\n', '[', '{', '=']);
        if plain { shown.to_owned() } else { String::new() }
    }

    fn visit_table(&mut self, name: &str, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            self.by_field.insert(path.clone(), place(name, text, key.span().start));
            self.keys.push((key.span(), path.clone()));
            self.visit(name, text, path, value);
        }
    }

    fn visit(&mut self, name: &str, text: &str, path: String, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.visit_table(name, text, &path, table),
            DeValue::Array(array) => {
                for (index, item) in array.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.by_field.insert(path.clone(), place(name, text, item.span().start));
                    self.visit(name, text, path, item);
                }
            }
            _ => {}
        }
        self.values.push((value.span(), path));
    }
}

/// `file:line`.
pub(super) fn place(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    format!("{name}:{}", 1 + before.matches('\n').count())
}
