//! Options that describe a task.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use serde::de::IgnoredAny;

use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::time::{parse_duration, to_proto};
use crate::proto::json::is_json;
use crate::proto::v1::{self, payload::Kind};

use super::limit;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Priority {
    /// Starts only when no task of a higher priority can start
    Low = 1,
    /// Starts before low priority
    #[default]
    Normal = 2,
    /// Starts before normal and low priority
    High = 3,
    /// Starts before all other priorities
    Critical = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Durability {
    /// After the task is synced to disk
    Fsync = 1,
    /// After the task is written; a power failure can lose it, a crash of the server cannot
    Memory = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnParentFailure {
    /// The task fails at once
    Fail = 1,
    /// The task starts once all parents have ended
    Run = 2,
    /// The task is cancelled at once
    Cancel = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnUniqueConflict {
    /// The submission fails
    Fail = 1,
    /// The existing task is used instead of a new one
    UseExisting = 2,
    /// The existing task is cancelled unless it has started
    ReplaceQueued = 3,
}

#[derive(Clone, Debug, Args)]
pub struct TaskArgs {
    /// Payload: a text, @FILE for the contents of a file, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-", conflicts_with = "json")]
    payload: Option<String>,
    /// Payload as JSON
    #[arg(long, value_name = "JSON")]
    json: Option<String>,
    /// Order in which the tasks of a pool start
    #[arg(long, value_enum, default_value_t)]
    priority: Priority,
    /// Task ID; submitting the same task again with the same ID does not create another [default: generated]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    id: Option<String>,
    /// Idempotency key: a repeated submission with the same key returns the first response
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    request_id: Option<String>,
    /// Pool, one of those that the handler allows [default: the handler's pool]
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), add = complete::pools())]
    pool: Option<String>,
    /// Display name, for people
    #[arg(long)]
    name: Option<String>,
    /// Label, for filters. Can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Timeout of each attempt, such as 30s or 1h30m, 1ms to 24h [default: the handler's timeout]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Maximum number of attempts, 1 to 100; 1 means no retry [default: the handler's setting]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    attempts: Option<i32>,
    /// Delay before the second attempt, such as 500ms, 0s to 365d [default: the handler's setting]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retry_delay: Option<Duration>,
    /// Factor by which the delay grows with each further attempt, 1 to 10 [default: the handler's setting]
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    retry_factor: Option<f64>,
    /// Upper limit of the delay, before jitter, from the delay to 365d [default: the handler's setting]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retry_max_delay: Option<Duration>,
    /// Maximum random addition to the delay, as a fraction of it, 0 to 1 [default: the handler's setting]
    #[arg(long, value_name = "FRACTION")]
    jitter: Option<f64>,
    /// Argument for a process handler. Can be repeated
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Earliest start, counted from the submission, such as 1h, 0s to 365d [default: no delay]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Latest start, counted from the submission, such as 1h, 1ms to 365d; a task that has not started by then
    /// fails with EXPIRED [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_after: Option<Duration>,
    /// Task that has to end before this one starts. Can be repeated
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new(), add = complete::tasks())]
    after: Vec<String>,
    /// What happens when a task given with --after has failed or was cancelled [default: fail]
    #[arg(long, value_enum, requires = "after")]
    on_parent_failure: Option<OnParentFailure>,
    /// Limit of the task: NAME or NAME/KEY of a limit in the configuration, or KEY,max=N,rate=STARTS/INTERVAL,burst=N, such as
    /// api,max=5 or api,rate=100/1m; tasks with the same key share it. Can be repeated
    #[arg(long = "task-limit", value_name = "LIMIT", value_parser = limit::parse)]
    limits: Vec<v1::TaskLimit>,
    /// Unique key: at most one task of the namespace with this key waits for its first start
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    unique_key: Option<String>,
    /// What happens when a task with the same unique key has not ended [default: fail]
    #[arg(long, value_enum, requires = "unique_key")]
    on_unique_conflict: Option<OnUniqueConflict>,
    /// Return the newest completed task with the same unique key instead, if it ended at most this long ago, such as 1h; both must
    /// be submitted with this option
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "unique_key")]
    reuse_result_within: Option<Duration>,
    /// Fairness key, such as the customer for whom the task is: tasks with different keys take turns
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    fairness_key: Option<String>,
    /// Never start the task twice, even if the server crashes while it runs
    #[arg(long)]
    at_most_once: bool,
    /// When the server acknowledges the submission [default: the pool's setting]
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// Namespace [default: the only namespace of the token, or "default"]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
}

impl TaskArgs {
    /// Builds the request. Reads the payload from its file or from stdin.
    pub fn request(self, handler: String) -> Result<v1::SubmitTaskRequest, CliError> {
        let payload = payload(self.payload, self.json)?;
        let overrides_retry = self.attempts.is_some()
            || self.retry_delay.is_some()
            || self.retry_factor.is_some()
            || self.retry_max_delay.is_some()
            || self.jitter.is_some();
        let dependencies = (!self.after.is_empty()).then(|| v1::Dependencies {
            task_ids: self.after,
            batch_indices: Vec::new(),
            on_parent_failure: self.on_parent_failure.map_or(0, |rule| rule as i32),
        });
        Ok(v1::SubmitTaskRequest {
            handler,
            payload,
            priority: self.priority as i32,
            task_id: self.id.unwrap_or_default(),
            request_id: self.request_id.unwrap_or_default(),
            pool: self.pool.unwrap_or_default(),
            display_name: self.name.unwrap_or_default(),
            labels: unique(self.labels)?,
            timeout: self.timeout.map(to_proto),
            retry: overrides_retry.then(|| v1::RetryPolicy {
                max_attempts: self.attempts.unwrap_or_default(),
                delay: self.retry_delay.map(to_proto),
                factor: self.retry_factor.unwrap_or_default(),
                max_delay: self.retry_max_delay.map(to_proto),
                jitter: self.jitter,
            }),
            args: self.args,
            delay: self.delay.map(to_proto),
            at_most_once: self.at_most_once,
            durability: self.durability.map_or(0, |durability| durability as i32),
            namespace: self.namespace.unwrap_or_default(),
            expires_after: self.expires_after.map(to_proto),
            dependencies,
            limits: self.limits,
            unique_key: self.unique_key.unwrap_or_default(),
            on_unique_conflict: self.on_unique_conflict.map_or(0, |rule| rule as i32),
            reuse_result_within: self.reuse_result_within.map(to_proto),
            fairness_key: self.fairness_key.unwrap_or_default(),
            ..v1::SubmitTaskRequest::default()
        })
    }
}

pub fn payload(text: Option<String>, json: Option<String>) -> Result<Option<v1::Payload>, CliError> {
    if let Some(json) = json {
        // Sent unchanged: the handler receives this text.
        check_json(&json).map_err(|error| CliError::Usage(format!("--json: {error}")))?;
        let content_type = crate::model::spec::JSON.to_owned();
        return Ok(Some(v1::Payload { kind: Some(Kind::Data(json.into())), content_type }));
    }
    let Some(text) = text else { return Ok(None) };
    let data = match text.strip_prefix('@') {
        Some(path) => {
            std::fs::read(path).map_err(|error| CliError::Usage(format!("failed to read `{path}`: {error}")))?
        }
        None if text == "-" => {
            let mut data = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut data);
            read.map_err(|error| CliError::Usage(format!("failed to read stdin: {error}")))?;
            data
        }
        None => text.into_bytes(),
    };
    Ok(Some(v1::Payload { kind: Some(Kind::Data(data.into())), content_type: String::new() }))
}

/// Accepts the same texts as the HTTP API.
pub fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string())?;
    let is_readable = is_json(text);
    is_readable
        .then_some(())
        .ok_or_else(|| "a string has half a pair of surrogates, such as `\\ud800` alone".to_owned())
}

/// Parses a factor. 0 would stand for the handler's setting.
fn factor(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|factor| (1.0..=10.0).contains(factor)).ok_or_else(|| "must be 1 to 10".to_owned())
}

/// Parses `KEY=VALUE`.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "must be KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The labels by their keys. A task has one value of each.
pub fn unique(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CliError> {
    unique_of("--label", labels)
}

/// As [`unique`], of another option.
pub fn unique_of(option: &str, labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CliError> {
    let mut found = BTreeMap::new();
    for (key, value) in labels {
        if found.contains_key(&key) {
            return Err(CliError::Usage(format!("{option} {key:?} is given more than once")));
        }
        found.insert(key, value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_text_a_file_or_valid_json() {
        let data = |payload: Option<v1::Payload>| match payload.unwrap().kind.unwrap() {
            Kind::Data(data) => data,
            Kind::Json(_) => panic!("not bytes"),
        };
        assert_eq!(data(payload(Some("hello".to_owned()), None).unwrap()), "hello");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"from a file").unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(data(payload(Some(named), None).unwrap()), "from a file");
        for invalid in ["{", "", "1 2", "NaN", r#""\ud800""#, r#"{"\udc00":1}"#] {
            assert!(matches!(payload(None, Some(invalid.to_owned())), Err(CliError::Usage(_))), "{invalid}");
        }
        for exact in ["1e999", "123456789012345678901234567890", r#"{"a":1,"a":"\ud83d\ude00"}"#] {
            assert_eq!(data(payload(None, Some(exact.to_owned())).unwrap()), exact);
        }
        assert!(matches!(payload(Some("@/does/not/exist".to_owned()), None), Err(CliError::Usage(_))));
    }
    #[test]
    fn a_label_is_given_once() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(unique(labels(&[("a", "1"), ("b", "1")])).unwrap().len(), 2);
        let error = unique(labels(&[("a", "1"), ("b", "1"), ("a", "1")])).unwrap_err();
        assert!(matches!(error, CliError::Usage(text) if text.contains("\"a\"")));
    }
}
