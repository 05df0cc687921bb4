//! The query of an export.
//!
//! Its text consists of what the operator configured and of quoted names of columns that exist; values of the payload are
//! parameters.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::error::ExportError;
use super::options::{ExportOptions, Source};
use super::request::{Condition, Request, Scalar};

/// A query with the values of its parameters.
#[derive(Debug)]
pub(super) struct Query {
    pub sql: String,
    pub parameters: Vec<Parameter>,
    /// Of the result.
    pub columns: Vec<String>,
    /// Rows that it returns at most.
    pub limit: Option<u64>,
    pub has_filters: bool,
}

#[derive(Debug, PartialEq)]
pub(super) struct Parameter {
    /// Path in the payload.
    pub field: String,
    pub value: Scalar,
}

/// What differs between databases.
#[derive(Clone, Copy)]
pub(super) struct Dialect {
    /// Before the number of a parameter.
    pub placeholder: char,
}

/// A column of the source.
pub(super) struct SourceColumn {
    pub name: String,
    /// What is selected for it, with `{}` for the quoted name.
    pub expression: &'static str,
}

/// The text that stands for all rows of the source.
pub(super) fn all_of(source: &Source) -> String {
    match source {
        Source::Table(name) => {
            let parts: Vec<_> = name.split('.').map(quoted).collect();
            format!("SELECT * FROM {}", parts.join("."))
        }
        // On lines of its own, since it can end with a comment.
        Source::Query(query) => format!("SELECT * FROM (\n{}\n) AS source", query.trim().trim_end_matches(';')),
    }
}

impl Query {
    pub fn new(
        options: &ExportOptions,
        request: &Request,
        available: &[SourceColumn],
        dialect: Dialect,
    ) -> Result<Self, ExportError> {
        check_source(options, available)?;
        let all: Vec<&str> = available.iter().map(|column| column.name.as_str()).collect();
        let allowed: Vec<&str> =
            if options.columns.is_empty() { all } else { options.columns.iter().map(String::as_str).collect() };
        let columns = chosen(request, &allowed)?;
        let format = request.format;
        if let Some(max) = format.columns_max()
            && columns.len() > max
        {
            let (count, name) = (columns.len(), format.extension());
            return Err(refused(format!(
                "`columns` has {count} columns, a {name} file has at most {max}; choose fewer"
            )));
        }
        let mut sql = String::from("SELECT ");
        for (index, name) in columns.iter().enumerate() {
            let column = available.iter().find(|column| column.name == *name).expect("it was checked");
            let comma = if index == 0 { "" } else { ", " };
            let name = quoted(name);
            let expression = column.expression.replace("{}", &format!("source.{name}"));
            write!(sql, "{comma}{expression} AS {name}").expect("a text takes everything");
        }
        write!(sql, " FROM ({}) AS source", all_of(&options.source)).expect("a text takes everything");
        let mut query = Self { sql, parameters: Vec::new(), columns, limit: None, has_filters: false };
        query.add_filters(options, request, dialect)?;
        query.add_order(request, &allowed)?;
        query.add_limit(request);
        Ok(query)
    }

    fn add_filters(&mut self, options: &ExportOptions, request: &Request, dialect: Dialect) -> Result<(), ExportError> {
        for (column, condition) in request.conditions()? {
            if !options.filters.iter().any(|allowed| allowed == column) {
                let allowed = list(options.filters.iter().map(String::as_str));
                return Err(refused(format!("`filters.{column}` is not allowed; the handler allows {allowed}")));
            }
            let name = format!("source.{}", quoted(column));
            let word = if std::mem::replace(&mut self.has_filters, true) { "AND" } else { "WHERE" };
            self.add(format_args!(" {word} "));
            match condition {
                Condition::IsNull => self.add(format_args!("{name} IS NULL")),
                Condition::In(values) => {
                    self.add(format_args!("{name} IN ("));
                    for (index, value) in values.into_iter().enumerate() {
                        let comma = if index == 0 { "" } else { ", " };
                        self.sql.push_str(comma);
                        self.add_parameter(format!("filters.{column}"), value, dialect);
                    }
                    self.sql.push(')');
                }
                Condition::Range(bounds) => {
                    for (index, (bound, operator, value)) in bounds.into_iter().enumerate() {
                        let and = if index == 0 { "" } else { " AND " };
                        self.add(format_args!("{and}{name} {} ", operator.sql()));
                        self.add_parameter(format!("filters.{column}.{bound}"), value, dialect);
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, text: fmt::Arguments<'_>) {
        self.sql.write_fmt(text).expect("a text takes everything");
    }

    fn add_parameter(&mut self, field: String, value: Scalar, dialect: Dialect) {
        self.parameters.push(Parameter { field, value });
        self.sql.push(dialect.placeholder);
        self.sql.push_str(&self.parameters.len().to_string());
    }

    fn add_order(&mut self, request: &Request, allowed: &[&str]) -> Result<(), ExportError> {
        for (index, order) in request.order.iter().enumerate() {
            let (name, direction) = order.strip_prefix('-').map_or((order.as_str(), ""), |name| (name, " DESC"));
            check_column(&format!("order[{index}]"), name, allowed)?;
            let word = if index == 0 { " ORDER BY" } else { "," };
            self.add(format_args!("{word} source.{}{direction}", quoted(name)));
        }
        Ok(())
    }

    fn add_limit(&mut self, request: &Request) {
        // One row more than the format takes shows whether there are more.
        let rows_max = request.format.rows_max().map(|rows| rows + 1);
        self.limit = [request.limit, rows_max].into_iter().flatten().min();
        if let Some(limit) = self.limit {
            self.add(format_args!(" LIMIT {}", limit.min(i64::MAX.cast_unsigned())));
        }
    }
}

/// Whether the columns that the operator configured exist once.
fn check_source(options: &ExportOptions, available: &[SourceColumn]) -> Result<(), ExportError> {
    let names: Vec<&str> = available.iter().map(|column| column.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(**name)) {
        return Err(ExportError::Query(format!(
            "it has two columns `{name}`; name them with AS in the handler's `query`"
        )));
    }
    for (setting, columns) in [("columns", &options.columns), ("filters", &options.filters)] {
        if let Some(name) = columns.iter().find(|name| !names.contains(&name.as_str())) {
            let found = list(names.iter().copied());
            return Err(ExportError::Query(format!("the handler's `{setting}` has `{name}`, the columns are {found}")));
        }
    }
    Ok(())
}

fn chosen(request: &Request, allowed: &[&str]) -> Result<Vec<String>, ExportError> {
    let Some(columns) = &request.columns else {
        return Ok(allowed.iter().map(|name| (*name).to_owned()).collect());
    };
    if columns.is_empty() {
        return Err(refused("`columns` is empty; name at least one, or leave it out for all".to_owned()));
    }
    let mut seen = BTreeSet::new();
    for (index, name) in columns.iter().enumerate() {
        let field = format!("columns[{index}]");
        check_column(&field, name, allowed)?;
        if !seen.insert(name) {
            return Err(refused(format!("`{field}` is `{name}`, which is named before")));
        }
    }
    Ok(columns.clone())
}

fn check_column(field: &str, name: &str, allowed: &[&str]) -> Result<(), ExportError> {
    if allowed.contains(&name) {
        return Ok(());
    }
    Err(refused(format!(
        "`{field}` is `{name}`, which is not a column of the export; they are {}",
        list(allowed.iter().copied())
    )))
}

fn refused(problem: String) -> ExportError {
    ExportError::Request(problem)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A name for SQL, whatever characters it has.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runners::export::options::Database;

    fn options(source: Source, columns: &[&str], filters: &[&str]) -> ExportOptions {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (columns, filters) = (owned(columns), owned(filters));
        ExportOptions { database: Database::Sqlite("park.db".into()), source, columns, filters, fonts: Vec::new() }
    }

    fn query(options: &ExportOptions, payload: &str) -> Result<Query, ExportError> {
        let column = |name: &str| SourceColumn { name: name.to_owned(), expression: "{}" };
        let available = ["id", "tenant", "se\"cret"].map(column);
        Query::new(options, &Request::parse(payload.as_bytes())?, &available, Dialect { placeholder: '$' })
    }

    #[test]
    fn values_are_parameters_and_names_are_quoted() {
        let options = options(Source::Table("park.lease".to_owned()), &[], &["id", "tenant"]);
        let payload = r#"{"filters": {"id": {"from": 5, "before": 9}, "tenant": ["A'; --", "B"]},
                          "order": ["-tenant", "se\"cret"], "limit": 10, "columns": ["se\"cret", "id"]}"#;
        let query = query(&options, payload).unwrap();
        let expected = r#"SELECT source."se""cret" AS "se""cret", source."id" AS "id" FROM (SELECT * FROM "park"."lease") AS source WHERE source."id" < $1 AND source."id" >= $2 AND source."tenant" IN ($3, $4) ORDER BY source."tenant" DESC, source."se""cret" LIMIT 10"#;
        assert_eq!(query.sql, expected);
        let values: Vec<_> =
            query.parameters.iter().map(|parameter| (parameter.field.as_str(), &parameter.value)).collect();
        let text = Scalar::Text("A'; --".to_owned());
        assert_eq!(
            values[..3],
            [
                ("filters.id.before", &Scalar::Integer(9)),
                ("filters.id.from", &Scalar::Integer(5)),
                ("filters.tenant", &text)
            ]
        );
    }

    #[test]
    fn a_pdf_reads_one_row_more_than_it_shows() {
        let options = options(Source::Query("SELECT 1 -- all;".to_owned()), &["id"], &[]);
        let query = query(&options, r#"{"format": "pdf"}"#).unwrap();
        assert!(query.sql.ends_with("(\nSELECT 1 -- all\n) AS source) AS source LIMIT 10001"), "{}", query.sql);
    }

    #[test]
    fn only_columns_of_the_handler_can_be_named() {
        let few = options(Source::Table("lease".to_owned()), &["id"], &["tenant"]);
        for (payload, expected) in [
            (
                r#"{"columns": ["tenant"]}"#,
                "`columns[0]` is `tenant`, which is not a column of the export; they are `id`",
            ),
            (r#"{"columns": []}"#, "`columns` is empty"),
            (r#"{"columns": ["id", "id"]}"#, "`columns[1]` is `id`, which is named before"),
            (r#"{"order": ["-tenant"]}"#, "`order[0]` is `tenant`"),
            (r#"{"order": ["id; DROP TABLE lease"]}"#, "`order[0]` is `id; DROP TABLE lease`"),
            (r#"{"filters": {"id": 1}}"#, "`filters.id` is not allowed; the handler allows `tenant`"),
        ] {
            assert!(query(&few, payload).unwrap_err().to_string().contains(expected), "{payload}");
        }
        assert!(
            query(&few, r#"{"filters": {"tenant": "A"}}"#).is_ok(),
            "a filter can use a column that is not exported"
        );
        let wrong = options(Source::Table("lease".to_owned()), &["rent"], &[]);
        let error = query(&wrong, "").unwrap_err();
        assert!(matches!(&error, ExportError::Query(text) if text.contains("`columns` has `rent`")), "{error}");
    }
}
