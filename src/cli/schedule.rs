//! `lineshaft schedule`.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::builder::styling::AnsiColor;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::model::{Clock, SystemClock, Timestamp, limits};
use crate::proto::v1::{self, ScheduleState, schedule_spec::Rule};

use super::client::Client;
use super::complete;
use super::error::{CliError, CommandResult, Exit};
use super::format;
use super::output;
use super::printer::Printer;
use super::table::{Column, Table, TableArgs};
use super::task::{TaskArgs, payload};
use super::time::{TimeForm, format_in_zone, parse_duration, parse_time, to_proto, to_timestamp, unix_micros};
use super::view::{self, Cell, Text, View};

static COLUMNS: [Column<v1::Schedule>; 9] = [
    Column::new("ID", 0, |schedule, _| schedule.schedule_id.as_str().into()),
    Column::new("STATE", 0, |schedule, _| state(schedule)),
    Column::new("NEXT RUN", 0, |schedule, view| view.time(schedule.next_run_at.as_ref())),
    Column::text("WHEN", 1, |schedule, _| when(schedule).into()),
    Column::new("HANDLER", 1, |schedule, _| task(schedule).handler.as_str().into()),
    Column::new("LAST RUN", 2, |schedule, view| view.time(last_run(schedule).submitted_at.as_ref())),
    Column::new("RUNS", 2, |schedule, _| Cell::number(schedule.run_count)),
    Column::new("ERRORS", 2, |schedule, _| Cell::number(schedule.error_count)),
    Column::new("MISSED", 3, |schedule, _| Cell::number(schedule.missed_count)),
];

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
pub enum Command {
    /// Create a schedule
    #[command(group = ArgGroup::new("rule").required(true).args(["cron", "every"]), mut_arg("id", |arg| arg.hide(true)), mut_arg("request_id", |arg| arg.hide(true)))]
    Create {
        /// Schedule ID
        schedule: String,
        /// Handler of the task of each run
        #[arg(add = complete::handlers())]
        handler: String,
        #[command(flatten)]
        spec: SpecArgs,
        #[command(flatten)]
        task: TaskArgs,
    },
    /// Show schedules
    #[command(visible_alias = "show")]
    Get {
        /// Schedule ID
        #[arg(value_name = "ID", required = true, add = complete::schedules())]
        ids: Vec<String>,
    },
    /// List schedules, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only schedules in this state. Can be repeated
        #[arg(long = "state", value_name = "STATE", value_enum, ignore_case = true)]
        states: Vec<State>,
        /// Only schedules of this namespace
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        namespace: Option<String>,
        /// Maximum number of schedules, at least 1
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Change the given settings of a schedule; the others stay
    Update {
        /// Schedule ID
        #[arg(add = complete::schedules())]
        id: String,
        #[command(flatten)]
        spec: SpecArgs,
        /// Payload: a text, @FILE for the contents of a file, or - for stdin
        #[arg(long, value_name = "TEXT|@FILE|-", conflicts_with = "json")]
        payload: Option<String>,
        /// Payload as JSON
        #[arg(long, value_name = "JSON")]
        json: Option<String>,
    },
    /// Delete a schedule; its tasks stay
    Delete {
        /// Schedule ID
        #[arg(add = complete::schedules())]
        id: String,
    },
    /// Start no run until the schedule is resumed
    Pause {
        /// Schedule ID
        #[arg(add = complete::schedules())]
        id: String,
    },
    /// Start runs again; those that were due meanwhile do not take place
    Resume {
        /// Schedule ID
        #[arg(add = complete::schedules())]
        id: String,
    },
    /// Submit the task of a schedule now, and print its ID
    Trigger {
        /// Schedule ID
        #[arg(add = complete::schedules())]
        id: String,
        /// Also if a task of the schedule is unfinished
        #[arg(long)]
        allow_overlap: bool,
    },
    /// Print the next times of a schedule, or of a rule, in its time zone
    #[command(group = ArgGroup::new("what").required(true).args(["id", "cron", "every"]))]
    Preview {
        /// Schedule ID
        #[arg(add = complete::schedules())]
        id: Option<String>,
        #[command(flatten)]
        spec: SpecArgs,
        /// Number of times, 1 to 1000
        #[arg(long, short = 'n', default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
        count: i32,
    },
}

#[derive(Clone, Debug, Args)]
pub struct SpecArgs {
    /// Run at the times of this cron pattern, such as "30 2 * * MON-FRI", with seconds before the minute if it has six fields
    #[arg(long, value_name = "PATTERN", conflicts_with = "every")]
    cron: Option<String>,
    /// Time zone of the pattern, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", conflicts_with = "every")]
    time_zone: Option<String>,
    /// What happens to local times that a change of the clocks skips or repeats [default: once]
    #[arg(long, value_enum, conflicts_with = "every")]
    dst: Option<Dst>,
    /// Run at this interval, such as 30s or 1h, 1s to 365d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Duration>,
    /// First possible run: a time such as 2027-01-31T08:00, or a duration from now
    #[arg(long, value_name = "TIME", value_parser = future)]
    start: Option<prost_types::Timestamp>,
    /// Last possible run: a time, or a duration from now
    #[arg(long, value_name = "TIME", value_parser = future)]
    end: Option<prost_types::Timestamp>,
    /// Number of runs after which the schedule is finished; 0: no limit
    #[arg(long, value_name = "N")]
    max_runs: Option<i64>,
    /// Let each run be late by up to this time, so that many schedules do not run at once, 0s to 24h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    run_jitter: Option<Duration>,
    /// How late a run may start, for example after the server was down, 0s to 365d [default: 1h]
    #[arg(long = "catch-up", value_name = "DURATION", value_parser = parse_duration)]
    catch_up_window: Option<Duration>,
    /// What happens to a run while a task of the schedule is unfinished [default: skip]
    #[arg(long, value_enum)]
    overlap: Option<Overlap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dst {
    /// Each time once: a skipped one right after the change
    Once = 1,
    /// A skipped time does not run
    Skip = 2,
    /// A skipped time does not run, a repeated one runs twice
    WallClock = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Overlap {
    /// It does not take place
    Skip = 1,
    /// It waits; only one run does
    Queue = 2,
    /// It starts beside the others
    Allow = 3,
    /// The others are cancelled first
    CancelOld = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    Active = 1,
    Paused = 2,
    Finished = 3,
}

/// Parses a time, or a duration from now.
fn future(text: &str) -> Result<prost_types::Timestamp, String> {
    let now = SystemClock.now();
    match parse_duration(text) {
        Ok(after) => Ok(to_timestamp(now.after(after))),
        Err(_) => parse_time(text, now).map(to_timestamp).map_err(|_| {
            "must be a duration from now, such as 1h30m, or a time, such as 2027-05-01T10:00:00Z or 2027-05-01"
                .to_owned()
        }),
    }
}

impl SpecArgs {
    /// Replaces what is given.
    fn apply(self, spec: &mut v1::ScheduleSpec) -> Result<(), CliError> {
        if let Some(every) = self.every {
            spec.rule = Some(Rule::Interval(to_proto(every)));
        } else if self.cron.is_some() || self.time_zone.is_some() || self.dst.is_some() {
            let mut cron = match spec.rule.take() {
                Some(Rule::Cron(cron)) => cron,
                _ => v1::CronRule::default(),
            };
            if self.cron.is_none() && cron.pattern.is_empty() {
                return Err(CliError::Usage("--time-zone and --dst need --cron".to_owned()));
            }
            cron.pattern = self.cron.unwrap_or(cron.pattern);
            cron.time_zone = self.time_zone.unwrap_or(cron.time_zone);
            cron.dst_policy = self.dst.map_or(cron.dst_policy, |dst| dst as i32);
            spec.rule = Some(Rule::Cron(cron));
        }
        spec.start_at = self.start.or(spec.start_at);
        spec.end_at = self.end.or(spec.end_at);
        spec.max_runs = self.max_runs.unwrap_or(spec.max_runs);
        spec.jitter = self.run_jitter.map(to_proto).or(spec.jitter);
        spec.catch_up_window = self.catch_up_window.map(to_proto).or(spec.catch_up_window);
        spec.overlap = self.overlap.map_or(spec.overlap, |overlap| overlap as i32);
        Ok(())
    }

    fn into_spec(self) -> Result<v1::ScheduleSpec, CliError> {
        let mut spec = v1::ScheduleSpec::default();
        self.apply(&mut spec)?;
        Ok(spec)
    }
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::Create { schedule, handler, spec, task } => {
            create(schedule, handler, spec, task, &client, printer).await
        }
        Command::Get { ids } => {
            let get = async |schedule_id| Ok(get(schedule_id, &client).await?);
            printer.print_each(ids, get, details).await
        }
        Command::List { states, namespace, limit, table } => {
            let table = Table::new(&COLUMNS, &table)?;
            let states = states.into_iter().map(|state| state as i32).collect();
            let namespace = namespace.unwrap_or_default();
            let request = v1::ListSchedulesRequest { namespace, states, ..v1::ListSchedulesRequest::default() };
            list(request, usize::try_from(limit).unwrap_or(usize::MAX), &table, &client, printer).await
        }
        Command::Update { id, spec, payload: text, json } => {
            let current = get(id.clone(), &client).await?;
            let mut changed = current.spec.unwrap_or_default();
            spec.apply(&mut changed)?;
            if let (Some(new), Some(task)) = (payload(text, json)?, &mut changed.task) {
                task.payload = Some(new);
            }
            // The schedule that the settings come from.
            let request = v1::UpdateScheduleRequest { schedule_id: id, spec: Some(changed), etag: current.etag };
            let response = client.schedules().update_schedule(request).await?.into_inner();
            Ok(print(response.schedule, printer))
        }
        Command::Delete { id } => {
            let request = v1::DeleteScheduleRequest { schedule_id: id.clone(), etag: String::new() };
            let response = client.schedules().delete_schedule(request).await?.into_inner();
            printer.print(&response, |_| format!("{id} deleted"));
            Ok(Exit::Success)
        }
        Command::Pause { id } => {
            let request = v1::PauseScheduleRequest { schedule_id: id };
            Ok(print(client.schedules().pause_schedule(request).await?.into_inner().schedule, printer))
        }
        Command::Resume { id } => {
            let request = v1::ResumeScheduleRequest { schedule_id: id };
            Ok(print(client.schedules().resume_schedule(request).await?.into_inner().schedule, printer))
        }
        Command::Trigger { id, allow_overlap } => {
            let request = v1::TriggerScheduleRequest { schedule_id: id, allow_overlap };
            let response = client.schedules().trigger_schedule(request).await?.into_inner();
            printer.print(&response, |response| response.task_id.clone());
            Ok(Exit::Success)
        }
        Command::Preview { id, spec, count } => {
            let spec = if id.is_none() { Some(spec.into_spec()?) } else { None };
            let zone = match (&id, &spec) {
                (Some(id), _) => time_zone(&get(id.clone(), &client).await?.spec.unwrap_or_default()),
                (None, spec) => spec.as_ref().map(time_zone).unwrap_or_default(),
            };
            let request = v1::PreviewScheduleRequest { schedule_id: id.unwrap_or_default(), spec, count };
            let response = client.schedules().preview_schedule(request).await?.into_inner();
            let now = printer.view().now();
            printer.print(&response, |response| {
                let lines = response.times.iter().map(|time| {
                    let at = Timestamp(u64::try_from(unix_micros(Some(time))).unwrap_or(0));
                    format!("{}  {}", format_in_zone(at, &zone), TimeForm::Relative.format(at, now))
                });
                lines.collect::<Vec<_>>().join("\n")
            });
            Ok(Exit::Success)
        }
    }
}

async fn create(
    schedule_id: String,
    handler: String,
    spec: SpecArgs,
    task: TaskArgs,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let task = task.request(handler)?;
    let namespace = task.namespace.clone();
    let spec = Some(v1::ScheduleSpec { task: Some(task), ..spec.into_spec()? });
    let request = v1::CreateScheduleRequest { schedule_id, namespace, spec };
    let response = client.schedules().create_schedule(request).await?.into_inner();
    let view = printer.view();
    printer.print(&response, |response| details(&response.schedule.clone().unwrap_or_default(), &view));
    Ok(Exit::Success)
}

async fn get(schedule_id: String, client: &Client) -> Result<v1::Schedule, tonic::Status> {
    let response = client.schedules().get_schedule(v1::GetScheduleRequest { schedule_id }).await?.into_inner();
    Ok(response.schedule.unwrap_or_default())
}

async fn list(
    mut request: v1::ListSchedulesRequest,
    limit: usize,
    table: &Table<v1::Schedule>,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let mut list = v1::ListSchedulesResponse::default();
    loop {
        let left = limit - list.schedules.len();
        request.page_size = i32::try_from(left.min(limits::PAGE_SIZE_MAX)).unwrap_or(i32::MAX);
        let page = client.schedules().list_schedules(request.clone()).await?.into_inner();
        list.schedules.extend(page.schedules);
        (list.revision, list.next_page_token) = (page.revision, page.next_page_token);
        if list.next_page_token.is_empty() || list.schedules.len() >= limit {
            break;
        }
        request.page_token.clone_from(&list.next_page_token);
    }
    printer.print_list(&mut list, table, |list| &mut list.schedules);
    if !list.next_page_token.is_empty() {
        output::status("More schedules match; use --limit to list them");
    }
    Ok(Exit::Success)
}

fn print(schedule: Option<v1::Schedule>, printer: Printer) -> Exit {
    printer.print(&schedule.unwrap_or_default(), |schedule| details(schedule, &printer.view()));
    Exit::Success
}

fn spec(schedule: &v1::Schedule) -> v1::ScheduleSpec {
    schedule.spec.clone().unwrap_or_default()
}

fn task(schedule: &v1::Schedule) -> v1::SubmitTaskRequest {
    spec(schedule).task.unwrap_or_default()
}

fn last_run(schedule: &v1::Schedule) -> v1::ScheduleRun {
    schedule.last_run.clone().unwrap_or_default()
}

fn state(schedule: &v1::Schedule) -> Cell {
    let name = schedule.state().as_str_name().trim_start_matches("SCHEDULE_STATE_").to_owned();
    let cell = Cell::from(name);
    if schedule.state() == ScheduleState::Paused { cell.colored(AnsiColor::Yellow) } else { cell }
}

/// The zone of a cron pattern; an interval has none.
fn time_zone(spec: &v1::ScheduleSpec) -> String {
    match &spec.rule {
        Some(Rule::Cron(cron)) => cron.time_zone.clone(),
        Some(Rule::Interval(_)) | None => String::new(),
    }
}

/// The rule in one line.
fn when(schedule: &v1::Schedule) -> String {
    match spec(schedule).rule {
        Some(Rule::Cron(cron)) if cron.time_zone == "UTC" => cron.pattern,
        Some(Rule::Cron(cron)) => format!("{} {}", cron.pattern, cron.time_zone),
        Some(Rule::Interval(every)) => format!("every {}", format::duration(Some(&every))),
        None => String::new(),
    }
}

fn lower_case(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', "-")
}

fn details(schedule: &v1::Schedule, view: &View) -> Text {
    let (settings, run) = (spec(schedule), last_run(schedule));
    let error = schedule.last_error.clone().unwrap_or_default();
    let outcome = lower_case(run.state().as_str_name(), "TASK_STATE_").replace("unspecified", "");
    view::fields(
        view,
        &[
            ("id", schedule.schedule_id.as_str().into()),
            ("state", state(schedule)),
            ("when", when(schedule).into()),
            ("handler", task(schedule).handler.as_str().into()),
            ("overlap", lower_case(settings.overlap().as_str_name(), "OVERLAP_POLICY_").into()),
            ("next run", view.time(schedule.next_run_at.as_ref())),
            ("last run", view.time(run.submitted_at.as_ref())),
            ("last task", run.task_id.as_str().into()),
            ("last outcome", outcome.into()),
            ("runs", Cell::number(schedule.run_count)),
            ("caught up", Cell::number(schedule.caught_up_count)),
            ("skipped", Cell::number(schedule.skipped_count)),
            ("missed", Cell::number(schedule.missed_count)),
            ("errors", Cell::number(schedule.error_count)),
            ("last error", error.message.as_str().into()),
            ("unfinished", schedule.unfinished_task_ids.join(" ").into()),
            ("waiting run", view.time(schedule.waiting_run_at.as_ref())),
            ("start", view.time(settings.start_at.as_ref())),
            ("end", view.time(settings.end_at.as_ref())),
            ("created", view.time(schedule.created_at.as_ref())),
            ("configured", if schedule.configured { "yes" } else { "no" }.into()),
            ("etag", schedule.etag.as_str().into()),
        ],
    )
}
