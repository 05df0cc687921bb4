//! Filter options of `task get`, `list`, `watch`, `wait`, `cancel`, `update`, `retry` and `delete`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::query::{Query, set_once};
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
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new(), add = complete::batches())]
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
    /// Only failed tasks of this group, as `lineshaft task failures` prints it
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    failure_group: Option<String>,
    /// Only tasks with this text, in upper or lower case, in the ID, name, handler, an argument, the failure or the reason of the
    /// cancel. Can be repeated: all texts must occur
    #[arg(long = "search", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    texts: Vec<String>,
    /// Only tasks that match all of these words, such as "state=failed,running handler=io label=team=red since=1h". Words without a
    /// name are texts, as of `--search`
    #[arg(long = "filter", value_name = "WORDS")]
    words: Option<String>,
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
    /// Two options exclude each other, or the words of `--filter` are not valid.
    pub fn request(self, period: Period) -> Result<v1::TaskFilter, CliError> {
        let problem = |problem: String| CliError::Usage(format!("--filter: {problem}"));
        let query = Query::parse(self.words.as_deref().unwrap_or_default(), SystemClock.now()).map_err(problem)?;
        let mut filter = query.for_tasks();
        filter.task_ids.extend(self.ids);
        filter.texts.extend(self.texts);
        filter.states.extend(self.states.into_iter().map(|state| state as i32));
        filter.priorities.extend(self.priorities.into_iter().map(|priority| priority as i32));
        for (name, field, option) in [
            ("batch", &mut filter.batch_id, self.batch),
            ("pool", &mut filter.pool, self.pool),
            ("handler", &mut filter.handler, self.handler),
            ("namespace", &mut filter.namespace, self.namespace),
            ("failure-group", &mut filter.failure_group, self.failure_group),
        ] {
            option.map_or(Ok(()), |value| set_once(name, field, &value)).map_err(problem)?;
        }
        for (key, value) in unique(self.labels)? {
            set_once(&format!("label={key}"), filter.labels.entry(key).or_default(), &value).map_err(problem)?;
        }
        for (name, bound, option) in [
            ("since", &mut filter.submitted_after, period.since),
            ("until", &mut filter.submitted_before, period.until),
        ] {
            if let Some(time) = option
                && bound.replace(to_timestamp(time)).is_some()
            {
                return Err(problem(format!("{name} is given more than once")));
            }
        }
        Ok(filter)
    }
}
