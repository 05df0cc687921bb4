//! A task, as the command line describes it.

use std::io::Read;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::proto::v1::{self, payload::Kind};

use super::connect::Problem;
use super::filter::label;

/// How urgent a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Priority {
    /// Runs when nothing else waits.
    Low = 1,
    /// The default.
    #[default]
    Normal = 2,
    /// Before normal work.
    High = 3,
    /// Before everything.
    Critical = 4,
}

/// When a submission is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Durability {
    /// When it is on disk.
    Fsync = 1,
    /// At once; may be lost by a crash.
    Memory = 2,
}

/// The task.
#[derive(Clone, Debug, Args)]
pub struct Task {
    /// Registered name of what runs.
    handler: String,
    /// The input: a text, @FILE, or - for standard input.
    #[arg(long, value_name = "TEXT|@FILE|-", conflicts_with = "json")]
    payload: Option<String>,
    /// The input as JSON.
    #[arg(long, value_name = "JSON")]
    json: Option<String>,
    /// How urgent it is.
    #[arg(long, value_enum, default_value_t)]
    priority: Priority,
    /// Chosen identity; a repeat with it is the same task.
    #[arg(long)]
    id: Option<String>,
    /// Idempotency key: a repeat gets the first answer.
    #[arg(long)]
    request_id: Option<String>,
    /// Pool, when the handler allows another than its own.
    #[arg(long)]
    pool: Option<String>,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Time-out of each attempt, such as 30s.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Attempts in all, the first included; 1: no retry.
    #[arg(long, value_name = "N")]
    attempts: Option<i32>,
    /// Delay before the second attempt, such as 500ms.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    retry_delay: Option<Duration>,
    /// What each further delay is multiplied with.
    #[arg(long)]
    retry_factor: Option<f64>,
    /// No delay is longer than this.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    retry_max_delay: Option<Duration>,
    /// Share of the delay that is added at most at random, 0 to 1.
    #[arg(long)]
    jitter: Option<f64>,
    /// Argument for a process handler; may be repeated.
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Does not start earlier than this after submission, such as 1h.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// Fails with EXPIRED when it has not started this long after submission, such as 1h.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    expires_after: Option<Duration>,
    /// Never started twice, even when the server crashes.
    #[arg(long)]
    at_most_once: bool,
    /// When the submission is acknowledged.
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// Tenant.
    #[arg(long)]
    namespace: Option<String>,
}

impl Task {
    /// The request; reads the payload's file.
    pub fn request(self) -> Result<v1::SubmitTaskRequest, Problem> {
        let payload = payload(self.payload, self.json)?;
        let wishes = self.attempts.is_some()
            || self.retry_delay.is_some()
            || self.retry_factor.is_some()
            || self.retry_max_delay.is_some()
            || self.jitter.is_some();
        Ok(v1::SubmitTaskRequest {
            handler: self.handler,
            payload,
            priority: self.priority as i32,
            task_id: self.id.unwrap_or_default(),
            request_id: self.request_id.unwrap_or_default(),
            pool: self.pool.unwrap_or_default(),
            display_name: self.name.unwrap_or_default(),
            labels: self.labels.into_iter().collect(),
            timeout: self.timeout.map(wire),
            retry: wishes.then(|| v1::RetryPolicy {
                max_attempts: self.attempts.unwrap_or_default(),
                delay: self.retry_delay.map(wire),
                factor: self.retry_factor.unwrap_or_default(),
                max_delay: self.retry_max_delay.map(wire),
                jitter: self.jitter,
            }),
            args: self.args,
            delay: self.delay.map(wire),
            at_most_once: self.at_most_once,
            durability: self.durability.map_or(0, |durability| durability as i32),
            namespace: self.namespace.unwrap_or_default(),
            expires_after: self.expires_after.map(wire),
            ..v1::SubmitTaskRequest::default()
        })
    }
}

/// A span for the wire; what is too long is for the server to refuse.
pub fn wire(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

fn payload(text: Option<String>, json: Option<String>) -> Result<Option<v1::Payload>, Problem> {
    if let Some(json) = json {
        // Sent as it is: the handler gets the very text.
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&json);
        parsed.map_err(|error| Problem::Usage(format!("--json: {error}")))?;
        let content_type = crate::model::spec::JSON.to_owned();
        return Ok(Some(v1::Payload { kind: Some(Kind::Data(json.into())), content_type }));
    }
    let Some(text) = text else { return Ok(None) };
    let data = match text.strip_prefix('@') {
        Some(path) => {
            std::fs::read(path).map_err(|error| Problem::Usage(format!("failed to read `{path}`: {error}")))?
        }
        None if text == "-" => {
            let mut data = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut data);
            read.map_err(|error| Problem::Usage(format!("failed to read standard input: {error}")))?;
            data
        }
        None => text.into_bytes(),
    };
    Ok(Some(v1::Payload { kind: Some(Kind::Data(data.into())), content_type: String::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_text_or_the_content_of_a_file_and_json_is_checked() {
        let data = |payload: Option<v1::Payload>| match payload.unwrap().kind.unwrap() {
            Kind::Data(data) => data,
            Kind::Json(_) => panic!("not bytes"),
        };
        assert_eq!(data(payload(Some("hello".to_owned()), None).unwrap()), "hello");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"from a file").unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(data(payload(Some(named), None).unwrap()), "from a file");
        assert!(matches!(payload(None, Some("{".to_owned())), Err(Problem::Usage(_))));
        assert!(matches!(payload(Some("@/does/not/exist".to_owned()), None), Err(Problem::Usage(_))));
    }
}
