//! Which tasks a command means.

use clap::Args;

use crate::proto::v1;

use super::submit::Priority;

/// A conjunction; what is not given matches everything.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only these tasks.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Only tasks of this batch.
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    /// Only tasks with this label.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only tasks in these states.
    #[arg(long = "state", value_enum, ignore_case = true)]
    states: Vec<State>,
    /// Only tasks of this pool.
    #[arg(long)]
    pool: Option<String>,
    /// Only tasks of this handler.
    #[arg(long)]
    handler: Option<String>,
    /// Only tasks of this tenant.
    #[arg(long)]
    namespace: Option<String>,
    /// Only tasks of these priorities.
    #[arg(long = "priority", value_enum)]
    priorities: Vec<Priority>,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Waiting = 1,
    Queued = 2,
    Running = 3,
    Completed = 4,
    Failed = 5,
    Cancelled = 6,
}

impl Filter {
    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        v1::TaskFilter::from(self.clone()) == v1::TaskFilter::default()
    }
}

impl From<Filter> for v1::TaskFilter {
    fn from(filter: Filter) -> Self {
        Self {
            task_ids: filter.ids,
            batch_id: filter.batch.unwrap_or_default(),
            labels: filter.labels.into_iter().collect(),
            states: filter.states.into_iter().map(|state| state as i32).collect(),
            pool: filter.pool.unwrap_or_default(),
            handler: filter.handler.unwrap_or_default(),
            namespace: filter.namespace.unwrap_or_default(),
            priorities: filter.priorities.into_iter().map(|priority| priority as i32).collect(),
            submitted_after: None,
            submitted_before: None,
        }
    }
}

/// Parses `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or_else(|| "a label is KEY=VALUE".to_owned())?;
    Ok((parts.0.to_owned(), parts.1.to_owned()))
}
