//! Rewrites parser errors so that they say what to change.

use std::sync::LazyLock;

use serde_json::Value;

use super::settings::Config;

/// Lists of tables, each with the setting that distinguishes its entries.
const LISTS: [(&str, &str); 7] = [
    ("pool", "name"),
    ("connection", "name"),
    ("handler", "name"),
    ("task_limit", "name"),
    ("schedule", "id"),
    ("auth.certificate", "subject"),
    ("auth.jwt.grant", "claim"),
];

const ADDRESS: &str = "an address and a port, such as \"127.0.0.1:7070\"";

/// Describes a parser error and how to correct it. `field` is the path of the setting, `line` the line of the file that
/// contains it (empty for an environment variable), `message` the text of the parser.
pub(super) fn explain(field: &str, line: &str, message: &str) -> String {
    let line = line.trim();
    if let Some(text) = wrong_brackets(line, message) {
        return text;
    }
    if let Some((unknown, known)) = cut(message, "unknown field `", "`, expected ") {
        return unknown_setting(field, unknown, known);
    }
    if let Some((unknown, known)) = cut(message, "unknown variant `", "`, expected ") {
        return format!("must be {known}{}", closest(unknown, known));
    }
    let mismatch =
        cut(message, "invalid type: ", ", expected ").or_else(|| cut(message, "invalid value: ", ", expected "));
    if let Some((found, expected)) = mismatch {
        return format!("must be {}, not {}", expected_value(expected), found_value(found));
    }
    if message.starts_with("invalid socket address") {
        return format!("must be {ADDRESS}; host names are not allowed");
    }
    if message == "duplicate key" {
        return "is defined twice; merge the two definitions".to_owned();
    }
    if lacks_quotes(line) {
        return format!("{message}; strings need quotes");
    }
    message.to_owned()
}

/// `[name]` instead of `[[name]]`, or the reverse.
fn wrong_brackets(line: &str, message: &str) -> Option<String> {
    if !message.starts_with("invalid type: ") {
        return None;
    }
    if let Some((name, _)) = line.strip_prefix("[[").and_then(|rest| rest.split_once("]]")) {
        let is_single = LISTS.iter().all(|(list, _)| *list != name.trim());
        return is_single.then(|| format!("is a single table: write [{}]", name.trim()));
    }
    let (name, _) = line.strip_prefix('[')?.split_once(']')?;
    let (list, key) = list_of_tables(name.trim())?;
    Some(format!("is a list of tables: write [[{list}]] and set {key} = \"…\" in it"))
}

fn unknown_setting(field: &str, unknown: &str, known: &str) -> String {
    let close = closest(unknown, known);
    let elsewhere: Vec<_> = SETTINGS.iter().filter(|path| path.ends_with(&format!(".{unknown}"))).collect();
    let section = match &elsewhere[..] {
        [path] if close.is_empty() && path.as_str() != field => {
            let (table, _) = path.rsplit_once('.').unwrap_or_default();
            format!("; it belongs in [{table}]")
        }
        _ => String::new(),
    };
    let known = known.trim_start_matches("one of ");
    format!("unknown setting `{unknown}`{close}{section}; the settings are {known}")
}

/// `; did you mean …?` with the most similar known name, if there is one.
fn closest(unknown: &str, known: &str) -> String {
    let plain = |name: &str| name.to_lowercase().replace('-', "_").trim_end_matches('s').to_owned();
    let known = known.split('`').skip(1).step_by(2);
    let near = known.map(|name| (strsim::levenshtein(&plain(unknown), &plain(name)), name)).min();
    let meant = near.filter(|(changes, name)| *changes <= name.len() / 3).map(|(_, name)| name);
    meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn cut<'a>(message: &'a str, begin: &str, middle: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(begin)?.split_once(middle)
}

/// The expected type, in the terms of the documentation.
fn expected_value(expected: &str) -> &str {
    match expected {
        "usize" | "u16" | "u32" | "u64" | "i64" => "a whole number, 0 or more",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a string in quotes",
        "a sequence" => "a list, such as [\"one\", \"two\"]",
        "a map" => "a table",
        "socket address" => ADDRESS,
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// The type of the value that was found. The message already contains the value itself.
fn found_value(found: &str) -> &str {
    let kinds = [
        ("string", "a string"),
        ("integer", "this number"),
        ("floating point", "this number"),
        ("boolean", "a boolean"),
        ("map", "a table"),
        ("sequence", "a list"),
    ];
    kinds.iter().find(|(kind, _)| found.starts_with(kind)).map_or(found, |(_, name)| name)
}

/// Whether the value in this line is a string without quotes.
fn lacks_quotes(line: &str) -> bool {
    let value = line.split_once('=').map(|(_, value)| value.trim()).unwrap_or_default();
    let plain = value.starts_with(['"', '\'', '[', '{']) || value.is_empty();
    !plain && !["true", "false"].contains(&value) && value.parse::<f64>().is_err()
}

/// The setting that a variable with one underscore between section and key was probably meant for.
pub(super) fn intended_setting(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("LINESHAFT_")?;
    // Not for `[tls]`: LINESHAFT_TLS_KEY and similar variables belong to the client commands.
    let matches = |path: &&String| !path.starts_with("tls.") && path.replace('.', "_").to_uppercase() == name;
    SETTINGS.iter().find(matches).cloned()
}

/// The list of tables that the setting is, or is in, with the setting that distinguishes its entries.
fn list_of_tables(field: &str) -> Option<&'static (&'static str, &'static str)> {
    let is_in = |list: &str| field.strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    LISTS.iter().find(|(list, _)| is_in(list))
}

/// Whether the setting is a list of tables, or in one, so that only the file can set it.
pub(super) fn is_list_of_tables(field: &str) -> bool {
    list_of_tables(field).is_some()
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Config).to_value());

/// Whether messages may show the value: only of a setting that exists, because a misspelt one may be meant for any other,
/// and not of one whose schema says that it is written only.
pub(super) fn is_shown(field: &str) -> bool {
    let mut setting = &*SCHEMA;
    for part in field.split('.') {
        let name = part.split('[').next().unwrap_or_default();
        setting = resolve(&resolve(setting)["properties"][name]);
    }
    !setting.is_null() && setting["writeOnly"] != true
}

/// The definition of the setting's table, or of the tables of its list; any other setting as it is.
fn resolve(setting: &Value) -> &Value {
    let name = [&setting["$ref"], &setting["anyOf"][0]["$ref"], &setting["items"]["$ref"]];
    let name = name.into_iter().find_map(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    name.map_or(setting, |name| &SCHEMA["$defs"][name])
}

/// Paths of all settings outside of lists of tables.
static SETTINGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut found = Vec::new();
    collect_paths(&SCHEMA, &SCHEMA, "", &mut found);
    found
});

fn collect_paths(schema: &Value, table: &Value, path: &str, found: &mut Vec<String>) {
    for (key, setting) in table["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // An optional table is an `anyOf` of the table and null.
        let name = [&setting["$ref"], &setting["anyOf"][0]["$ref"]].into_iter().find_map(Value::as_str);
        let inner = name.and_then(|name| name.strip_prefix("#/$defs/")).map(|name| &schema["$defs"][name]);
        match inner.filter(|inner| inner["properties"].is_object()) {
            Some(inner) => collect_paths(schema, inner, &path, found),
            None => found.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_cannot_set_a_list_of_tables() {
        for (list, _) in LISTS {
            let variable = format!("LINESHAFT_{}", list.replace('.', "__").to_uppercase());
            let loaded =
                crate::config::load(None, [(variable.into(), "x".into())], crate::config::Overrides::default());
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("is a list of tables, which cannot be set by a variable; use the file"), "{error}");
        }
    }

    #[test]
    fn every_list_of_tables_is_known() {
        let schema = &*SCHEMA;
        let mut lists = Vec::new();
        for path in SETTINGS.iter() {
            let mut table = schema;
            for key in path.split('.') {
                let setting = &table["properties"][key];
                table = resolve(setting);
                if setting["type"] == "array" && table["properties"].is_object() {
                    lists.push((path.clone(), table));
                }
            }
        }
        assert_eq!(lists.len(), LISTS.len(), "{:?}", lists.iter().map(|(path, _)| path).collect::<Vec<_>>());
        for (path, table) in lists {
            let (_, key) = LISTS.iter().find(|(list, _)| *list == path).expect(&path);
            assert!(table["properties"][*key].is_object(), "{path} has no {key}");
        }
    }

    #[test]
    fn a_variable_with_one_underscore_is_recognized() {
        assert_eq!(intended_setting("LINESHAFT_SERVER_LISTEN").as_deref(), Some("server.listen"));
        assert_eq!(intended_setting("LINESHAFT_AUTH_JWT_JWKS_URL").as_deref(), Some("auth.jwt.jwks_url"));
        for other in ["LINESHAFT_SERVER", "LINESHAFT_TOKEN", "LINESHAFT_TLS_KEY", "LINESHAFT_PORT_7070_TCP"] {
            assert_eq!(intended_setting(other), None, "{other}");
        }
    }

    #[test]
    fn similar_names_are_suggested() {
        assert_eq!(closest("Max-In-Flight", "`max_in_flight` or `other`"), "; did you mean `max_in_flight`?");
        assert_eq!(closest("colour", "`builtins`, `server`, `log`"), "");
    }
}
