//! Filter options of `task list`, `watch`, `wait`, `cancel` and `delete`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::time::{parse_time, to_timestamp};
use crate::model::{Clock, SystemClock, Timestamp};
use crate::proto::v1;

use super::args::{Priority, label, unique};

/// A task must match every option that is given; an option given more than once matches any of its values, except
/// labels, which must all match.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only these tasks
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new(), add = complete::tasks())]
    ids: Vec<String>,
    /// Only tasks of this batch
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    batch: Option<String>,
    /// Only tasks with this label. Can be repeated: all labels must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only tasks in this state. Can be repeated
    #[arg(long = "state", value_name = "STATE", value_enum, ignore_case = true)]
    states: Vec<TaskState>,
    /// Only tasks of this pool
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), add = complete::pools())]
    pool: Option<String>,
    /// Only tasks of this handler
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), add = complete::handlers())]
    handler: Option<String>,
    /// Only tasks of this namespace
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    /// Only tasks with this priority. Can be repeated
    #[arg(long = "priority", value_name = "PRIORITY", value_enum)]
    priorities: Vec<Priority>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TaskState {
    Waiting = 1,
    Queued = 2,
    Running = 3,
    Completed = 4,
    Failed = 5,
    Cancelled = 6,
}

/// When the tasks were submitted.
#[derive(Clone, Debug, Default, Args)]
pub struct Period {
    /// Only tasks that were submitted since this time, or in this time until now, such as 1h30m or 2026-05-01T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only tasks that were submitted before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    parse_time(text, SystemClock.now())
}

impl Filter {
    /// # Errors
    /// A label is given twice.
    pub fn request(self, period: Period) -> Result<v1::TaskFilter, CliError> {
        Ok(v1::TaskFilter {
            task_ids: self.ids,
            batch_id: self.batch.unwrap_or_default(),
            labels: unique(self.labels)?,
            states: self.states.into_iter().map(|state| state as i32).collect(),
            pool: self.pool.unwrap_or_default(),
            handler: self.handler.unwrap_or_default(),
            namespace: self.namespace.unwrap_or_default(),
            priorities: self.priorities.into_iter().map(|priority| priority as i32).collect(),
            submitted_after: period.since.map(to_timestamp),
            submitted_before: period.until.map(to_timestamp),
        })
    }
}
