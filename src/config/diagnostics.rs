//! Turns what the parser says into what its reader can do about it.

use std::sync::LazyLock;

use serde_json::Value;

use super::Config;

/// Tables that may be there several times, each with the setting that tells it from the others.
const LISTS: [(&str, &str); 4] =
    [("pool", "name"), ("handler", "name"), ("auth.certificate", "subject"), ("auth.jwt.grant", "claim")];

/// What an address and a port look like.
const ADDRESS: &str = "an address and a port, such as \"127.0.0.1:7070\"";

/// What is wrong, and what to write instead. `field` has the setting's path, `line` the line that it stands in
/// (empty: it is no file), `message` what the parser says.
pub(super) fn explain(field: &str, line: &str, message: &str) -> String {
    let line = line.trim();
    if let Some(advice) = brackets(line, message) {
        return advice;
    }
    if let Some((unknown, known)) = cut(message, "unknown field `", "`, expected ") {
        return unknown_setting(field, unknown, known);
    }
    if let Some((unknown, known)) = cut(message, "unknown variant `", "`, expected ") {
        return format!("must be {known}{}", closest(unknown, known));
    }
    let mistaken =
        cut(message, "invalid type: ", ", expected ").or_else(|| cut(message, "invalid value: ", ", expected "));
    if let Some((found, expected)) = mistaken {
        return format!("must be {}, not {}", wanted(expected), given(found));
    }
    if message.starts_with("invalid socket address") {
        return format!("must be {ADDRESS}; a name is no address");
    }
    if message == "duplicate key" {
        return "stands here for the second time; write all of it in one place".to_owned();
    }
    if is_bare(line) {
        return format!("{message}; a text stands in quotes");
    }
    message.to_owned()
}

/// One bracket too few or too many.
fn brackets(line: &str, message: &str) -> Option<String> {
    if !message.starts_with("invalid type: ") {
        return None;
    }
    if let Some((name, _)) = line.strip_prefix("[[").and_then(|rest| rest.split_once("]]")) {
        let once = LISTS.iter().all(|(list, _)| *list != name.trim());
        return once.then(|| format!("there is only one of it: write [{}]", name.trim()));
    }
    let (name, _) = line.strip_prefix('[')?.split_once(']')?;
    let of = |list: &str| name.trim().strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (list, key) = LISTS.iter().find(|(list, _)| of(list))?;
    Some(format!("there may be several of it: write [[{list}]], and below it {key} = \"…\""))
}

fn unknown_setting(field: &str, unknown: &str, known: &str) -> String {
    let close = closest(unknown, known);
    let elsewhere: Vec<_> = SETTINGS.iter().filter(|path| path.ends_with(&format!(".{unknown}"))).collect();
    let belongs = match &elsewhere[..] {
        [path] if close.is_empty() && path.as_str() != field => {
            let (table, _) = path.rsplit_once('.').unwrap_or_default();
            format!("; it belongs in [{table}]")
        }
        _ => String::new(),
    };
    let known = known.trim_start_matches("one of ");
    format!("unknown field `{unknown}`{close}{belongs}; there are {known}")
}

/// A question for the known name that was probably meant.
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

/// What the parser expected, in words of the documentation.
fn wanted(expected: &str) -> &str {
    match expected {
        "usize" | "u16" | "u32" | "u64" | "i64" => "a whole number from 0 on",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "a sequence" => "a list, such as [\"one\", \"two\"]",
        "a map" => "a table",
        "socket address" => ADDRESS,
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// What it found: the value itself stands beside it.
fn given(found: &str) -> &str {
    let kinds = [
        ("string", "a text"),
        ("integer", "that number"),
        ("floating point", "that number"),
        ("boolean", "true or false"),
        ("map", "a table"),
        ("sequence", "a list"),
    ];
    kinds.iter().find(|(kind, _)| found.starts_with(kind)).map_or(found, |(_, words)| words)
}

/// Whether the value in this line is a text without quotes.
fn is_bare(line: &str) -> bool {
    let value = line.split_once('=').map(|(_, value)| value.trim()).unwrap_or_default();
    let plain = value.starts_with(['"', '\'', '[', '{']) || value.is_empty();
    !plain && !["true", "false"].contains(&value) && value.parse::<f64>().is_err()
}

/// The setting that a variable was meant for which has one underscore where two belong.
pub(super) fn intended_setting(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("LINESHAFT_")?;
    // Not those of `[tls]`: the command line has LINESHAFT_TLS_KEY and others of its own.
    let is_meant = |path: &&String| !path.starts_with("tls.") && path.replace('.', "_").to_uppercase() == name;
    SETTINGS.iter().find(is_meant).cloned()
}

/// Paths of all settings that are no list of tables.
static SETTINGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let schema = schemars::schema_for!(Config);
    let mut found = Vec::new();
    gather(schema.as_value(), schema.as_value(), "", &mut found);
    found
});

fn gather(schema: &Value, table: &Value, path: &str, found: &mut Vec<String>) {
    for (key, setting) in table["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // A table that need not be there is one of two.
        let name = [&setting["$ref"], &setting["anyOf"][0]["$ref"]].into_iter().find_map(Value::as_str);
        let inner = name.and_then(|name| name.strip_prefix("#/$defs/")).map(|name| &schema["$defs"][name]);
        match inner.filter(|inner| inner["properties"].is_object()) {
            Some(inner) => gather(schema, inner, &path, found),
            None => found.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_of_tables_is_known_with_what_names_its_rows() {
        let schema = schemars::schema_for!(Config);
        let schema = schema.as_value();
        let mut lists = Vec::new();
        for path in SETTINGS.iter() {
            let mut table = schema;
            for key in path.split('.') {
                let setting = &table["properties"][key];
                let name = [&setting["$ref"], &setting["anyOf"][0]["$ref"], &setting["items"]["$ref"]];
                let name = name.into_iter().find_map(Value::as_str).unwrap_or_default();
                table = &schema["$defs"][name.trim_start_matches("#/$defs/")];
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
    fn a_variable_with_one_underscore_is_known_for_what_it_was_meant() {
        assert_eq!(intended_setting("LINESHAFT_SERVER_LISTEN").as_deref(), Some("server.listen"));
        assert_eq!(intended_setting("LINESHAFT_AUTH_JWT_JWKS_URL").as_deref(), Some("auth.jwt.jwks_url"));
        for other in ["LINESHAFT_SERVER", "LINESHAFT_TOKEN", "LINESHAFT_TLS_KEY", "LINESHAFT_PORT_7070_TCP"] {
            assert_eq!(intended_setting(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_known_is_guessed_and_no_other() {
        assert_eq!(closest("Max-In-Flight", "`max_in_flight` or `other`"), "; did you mean `max_in_flight`?");
        assert_eq!(closest("colour", "`builtins`, `server`, `log`"), "");
    }
}
