//! Filter options of `task list`, `watch` and `delete`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::proto::v1;

use crate::cli::error::CliError;

use super::args::{Priority, label, unique};

/// A task must match every option that is given; an option given more than once matches any of its values, except
/// labels, which must all match.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only the task with this ID. Can be repeated
    #[arg(long = "id", value_name = "ID")]
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
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pool: Option<String>,
    /// Only tasks of this handler
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
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

impl Filter {
    /// Whether it matches every task.
    pub fn is_empty(&self) -> bool {
        v1::TaskFilter::try_from(self.clone()).is_ok_and(|filter| filter == v1::TaskFilter::default())
    }
}

impl TryFrom<Filter> for v1::TaskFilter {
    type Error = CliError;

    fn try_from(filter: Filter) -> Result<Self, CliError> {
        Ok(Self {
            task_ids: filter.ids,
            batch_id: filter.batch.unwrap_or_default(),
            labels: unique(filter.labels)?,
            states: filter.states.into_iter().map(|state| state as i32).collect(),
            pool: filter.pool.unwrap_or_default(),
            handler: filter.handler.unwrap_or_default(),
            namespace: filter.namespace.unwrap_or_default(),
            priorities: filter.priorities.into_iter().map(|priority| priority as i32).collect(),
            submitted_after: None,
            submitted_before: None,
        })
    }
}
