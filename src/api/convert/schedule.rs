//! Schedules, and the requests that name or create them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::model::limits::{
    CATCH_UP_DEFAULT, CATCH_UP_MAX, FILTER_VALUES_MAX, SCHEDULE_INTERVAL_MAX, SCHEDULE_INTERVAL_MIN,
    SCHEDULE_JITTER_MAX, SCHEDULE_PAYLOAD_BYTES_MAX, SCHEDULE_RUNS_MAX,
};
use crate::model::schedule::schedule_id;
use crate::model::schedule_rule::parse_zone;
use crate::model::{
    Catalog, CronRule, DstPolicy, Namespace, Overlap, Schedule, ScheduleId, ScheduleKey, ScheduleRef, ScheduleRule,
    ScheduleRun, ScheduleSpec, ScheduleState, TaskOptions, TaskSpec, Timestamp,
};
use crate::proto::v1::{self, payload::Kind, schedule_spec::Rule};
use crate::scheduler::ScheduleFilter;

use super::invalid_fields::{InvalidFields, MessagePath};
use super::numbers::to_i64;
use super::submit::{self, SubmitContext, SubmitError, namespace};
use super::task;
use super::time::{duration, format_duration, parse_timestamp, timestamp};

/// Parses the ID in a request.
///
/// # Errors
/// [`InvalidFields`] naming `schedule_id`.
pub fn schedule_ref(text: &str) -> Result<ScheduleRef, InvalidFields> {
    ScheduleRef::parse(text).map_err(|error| InvalidFields::one("schedule_id", error))
}

/// The settings of a schedule without its task.
pub struct ParsedSpec {
    rule: ScheduleRule,
    start_at: Option<Timestamp>,
    end_at: Option<Timestamp>,
    max_runs: Option<u64>,
    jitter: Duration,
    catch_up_window: Duration,
    overlap: Overlap,
}

impl ParsedSpec {
    /// # Errors
    /// [`InvalidFields`], with every invalid field.
    pub fn parse(spec: &v1::ScheduleSpec) -> Result<Self, InvalidFields> {
        let mut invalid = InvalidFields::default();
        let rule = rule(&mut invalid, spec.rule.as_ref());
        let start_at = time(&mut invalid, "spec.start_at", spec.start_at.as_ref());
        let end_at = time(&mut invalid, "spec.end_at", spec.end_at.as_ref());
        if let (Some(start), Some(end)) = (start_at, end_at)
            && end < start
        {
            invalid.add("spec.end_at", format_args!("is {end}, must not be before `start_at`, {start}"));
        }
        let max_runs = u64::try_from(spec.max_runs).ok().filter(|max| *max <= SCHEDULE_RUNS_MAX);
        if max_runs.is_none() {
            let given = spec.max_runs;
            invalid.add("spec.max_runs", format_args!("is {given}, must be from 0 to {SCHEDULE_RUNS_MAX}"));
        }
        let jitter = invalid.duration("spec.jitter", spec.jitter.as_ref(), Duration::ZERO..=SCHEDULE_JITTER_MAX);
        let window = spec.catch_up_window.as_ref();
        let catch_up_window = invalid.duration("spec.catch_up_window", window, Duration::ZERO..=CATCH_UP_MAX);
        let overlap = policy(&mut invalid, "spec.overlap", spec.overlap, 4, Overlap::from_number);
        invalid.check()?;
        let Some(rule) = rule else { return Err(InvalidFields::one("spec", "must have `cron` or `interval`")) };
        Ok(Self {
            rule,
            start_at,
            end_at,
            max_runs: max_runs.filter(|max| *max > 0),
            jitter: jitter.unwrap_or_default(),
            catch_up_window: catch_up_window.unwrap_or(CATCH_UP_DEFAULT),
            overlap,
        })
    }

    /// The settings with a task that was converted from `spec.task`.
    fn with_task(self, task: TaskSpec, id: &ScheduleId) -> ScheduleSpec {
        let mut extras = task.extras().clone();
        // That of the call that creates the schedule.
        extras.trace = None;
        let options = TaskOptions { schedule: Some(id.clone()), ..(*task.options).clone() };
        let TaskSpec { payload, .. } = task;
        let (id, options, extras) = (ScheduleSpec::NO_TASK_ID, Arc::new(options), extras.boxed());
        let task = Arc::new(TaskSpec { id, options, payload, extras });
        let Self { rule, start_at, end_at, max_runs, jitter, catch_up_window, overlap } = self;
        ScheduleSpec { rule, start_at, end_at, max_runs, jitter, catch_up_window, overlap, configured: false, task }
    }

    /// The times of a schedule that is created at `now`.
    pub fn times(self, now: Timestamp, count: usize) -> Vec<Timestamp> {
        let Self { rule, start_at, end_at, max_runs, .. } = self;
        let count = max_runs.map_or(count, |max| count.min(usize::try_from(max).unwrap_or(usize::MAX)));
        rule.anchored(start_at, now).times_within(now, start_at, end_at).take(count).collect()
    }
}

/// Converts the settings of a schedule; `convert` converts its task.
///
/// # Errors
/// [`InvalidFields`], and those of `convert`.
pub fn parse_spec<E: From<InvalidFields>>(
    mut spec: v1::ScheduleSpec,
    key: &ScheduleKey,
    convert: impl FnOnce(v1::SubmitTaskRequest) -> Result<TaskSpec, E>,
) -> Result<ScheduleSpec, E> {
    let parsed = ParsedSpec::parse(&spec)?;
    let mut task = spec.task.take().ok_or_else(|| InvalidFields::one("spec.task", "must be set"))?;
    check_task(&task, &key.namespace)?;
    task.namespace = key.namespace.to_string();
    let task = convert(task)?;
    check_payload(&task)?;
    Ok(parsed.with_task(task, &key.id))
}

/// Converts a schedule of the server's configuration.
///
/// # Errors
/// [`SubmitError`].
pub fn configured(
    spec: v1::ScheduleSpec,
    key: &ScheduleKey,
    catalog: &Arc<Catalog>,
    now: Timestamp,
) -> Result<ScheduleSpec, SubmitError> {
    let context = SubmitContext {
        new_id: || ScheduleSpec::NO_TASK_ID,
        now,
        submitted_by: "configuration",
        default_namespace: None,
        batch: None,
        trace: None,
        has_send_span: false,
        places: 0,
    };
    let convert = |task| submit::convert(task, MessagePath::ScheduleTask, catalog, &context, &mut None, Arc::new);
    Ok(ScheduleSpec { configured: true, ..parse_spec(spec, key, convert)? })
}

fn rule(invalid: &mut InvalidFields, rule: Option<&Rule>) -> Option<ScheduleRule> {
    match rule {
        None => {
            invalid.add("spec", "must have `cron` or `interval`");
            None
        }
        Some(Rule::Interval(every)) => {
            let bounds = SCHEDULE_INTERVAL_MIN..=SCHEDULE_INTERVAL_MAX;
            let every = invalid.duration("spec.interval", Some(every), bounds)?;
            if every.subsec_nanos() > 0 {
                invalid.add("spec.interval", format_args!("is {}, must be whole seconds", format_duration(every)));
            }
            Some(ScheduleRule::Interval { every, anchor: Timestamp::ZERO })
        }
        Some(Rule::Cron(cron)) => {
            let dst = policy(invalid, "spec.cron.dst_policy", cron.dst_policy, 3, DstPolicy::from_number);
            let zone = parse_zone(&cron.time_zone).map_err(|error| invalid.add("spec.cron.time_zone", error)).ok();
            let rule = CronRule::new(&cron.pattern, zone.unwrap_or_default(), dst);
            rule.map_err(|error| invalid.add("spec.cron.pattern", error)).ok().map(ScheduleRule::Cron)
        }
    }
}

/// A policy; 0 is the default.
fn policy<T: Default>(
    invalid: &mut InvalidFields,
    field: impl Display,
    number: i32,
    last: u8,
    from_number: impl FnOnce(u8) -> Option<T>,
) -> T {
    if number == 0 {
        return T::default();
    }
    let found = u8::try_from(number).ok().and_then(from_number);
    if found.is_none() {
        invalid.add(field, format_args!("is {number}, must be from 0 to {last}"));
    }
    found.unwrap_or_default()
}

fn time(invalid: &mut InvalidFields, field: &str, at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let at = at?;
    let parsed = parse_timestamp(at).filter(|at| *at <= Timestamp::LAST_SHOWN);
    if parsed.is_none() {
        let (seconds, nanos) = (at.seconds, at.nanos);
        invalid.add(field, format_args!("is {seconds} s {nanos} ns, must be a time from 1970 to 9999"));
    }
    parsed
}

/// The key of a schedule to create.
///
/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn new_key(request: &v1::CreateScheduleRequest, default: Option<&Namespace>) -> Result<ScheduleKey, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let namespace = namespace(&mut invalid, MessagePath::Root.field("namespace"), &request.namespace, default);
    let id = invalid.parsed("schedule_id", schedule_id(&request.schedule_id));
    invalid.check()?;
    let (Some(namespace), Some(id)) = (namespace, id) else {
        return Err(InvalidFields::one("schedule_id", "is invalid"));
    };
    Ok(ScheduleKey { namespace, id })
}

/// Checks the fields of a task that have another meaning than those of a submission.
fn check_task(task: &v1::SubmitTaskRequest, namespace: &Namespace) -> Result<(), InvalidFields> {
    let (mut invalid, path) = (InvalidFields::default(), MessagePath::ScheduleTask);
    for (field, is_set, why) in [
        ("task_id", !task.task_id.is_empty(), "it follows from the schedule and the time of the run"),
        ("request_id", !task.request_id.is_empty(), "each run is submitted once"),
        ("batch_id", !task.batch_id.is_empty(), "the task of a schedule belongs to no batch"),
        ("trace_mode", task.trace_mode != 0, "no call submits the task"),
        ("dependencies", task.dependencies.is_some(), "the tasks of all runs would have the same parents"),
        ("unique_key", !task.unique_key.is_empty(), "the rule for overlapping runs is `overlap`"),
    ] {
        if is_set {
            invalid.add(path.field(field), format_args!("must not be set: {why}"));
        }
    }
    if !task.namespace.is_empty() && task.namespace != namespace.as_str() {
        let given = &task.namespace;
        invalid.add(path.field("namespace"), format_args!("is `{given}`, must be that of the schedule, `{namespace}`"));
    }
    invalid.check()
}

fn check_payload(task: &TaskSpec) -> Result<(), InvalidFields> {
    let mut invalid = InvalidFields::default();
    let field = MessagePath::ScheduleTask.field("payload");
    invalid.check_length(field, task.payload.len(), SCHEDULE_PAYLOAD_BYTES_MAX, "bytes");
    invalid.check()
}

/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn filter(request: &v1::ListSchedulesRequest) -> Result<ScheduleFilter, InvalidFields> {
    let mut invalid = InvalidFields::default();
    invalid.check_length("states", request.states.len(), FILTER_VALUES_MAX, "values");
    let mut states = Vec::new();
    for (index, number) in request.states.iter().enumerate().take(FILTER_VALUES_MAX) {
        match v1::ScheduleState::try_from(*number) {
            Ok(v1::ScheduleState::Active) => states.push(ScheduleState::Active),
            Ok(v1::ScheduleState::Paused) => states.push(ScheduleState::Paused),
            Ok(v1::ScheduleState::Finished) => states.push(ScheduleState::Finished),
            Ok(v1::ScheduleState::Unspecified) | Err(_) => {
                invalid.add(format_args!("states[{index}]"), format_args!("is {number}, must be from 1 to 3"));
            }
        }
    }
    let namespace = invalid.optional("namespace", &request.namespace, Namespace::parse);
    invalid.check()?;
    Ok(ScheduleFilter { namespaces: namespace.into_iter().collect(), states })
}

/// Converts a schedule, with the payload of its task or without.
pub fn schedule(schedule: &Schedule, with_payload: bool) -> v1::Schedule {
    let state = match schedule.state() {
        ScheduleState::Active => v1::ScheduleState::Active,
        ScheduleState::Paused => v1::ScheduleState::Paused,
        ScheduleState::Finished => v1::ScheduleState::Finished,
    };
    v1::Schedule {
        schedule_id: schedule.key.to_string(),
        namespace: schedule.key.namespace.to_string(),
        spec: Some(spec(&schedule.spec, with_payload)),
        state: state.into(),
        etag: schedule.etag(),
        created_at: Some(timestamp(schedule.created_at)),
        updated_at: Some(timestamp(schedule.changed_at)),
        next_run_at: schedule.next_time().map(timestamp),
        run_count: to_i64(schedule.runs + schedule.triggered),
        triggered_count: to_i64(schedule.triggered),
        caught_up_count: to_i64(schedule.caught_up),
        skipped_count: to_i64(schedule.skipped),
        missed_count: to_i64(schedule.missed),
        error_count: to_i64(schedule.errors),
        last_error: schedule.last_error.as_ref().map(|error| v1::ScheduleError {
            at: Some(timestamp(error.at)),
            task_id: error.task.as_ref().map(|(task, _)| task.to_string()).unwrap_or_default(),
            reason: error.task.as_ref().map_or(0, |(_, reason)| i32::from(*reason as u8)),
            message: error.message.to_string(),
        }),
        last_run: schedule.last_run.as_ref().map(run),
        unfinished_task_ids: schedule.unfinished.iter().map(ToString::to_string).collect(),
        waiting_run_at: schedule.waiting.map(timestamp),
        configured: schedule.spec.configured,
    }
}

fn run(run: &ScheduleRun) -> v1::ScheduleRun {
    v1::ScheduleRun {
        task_id: run.task.to_string(),
        time: Some(timestamp(run.scheduled.time)),
        kind: i32::from(run.scheduled.kind as u8),
        submitted_at: Some(timestamp(run.submitted_at)),
        finished_at: run.end.map(|(at, _)| timestamp(at)),
        state: run.end.map_or(0, |(_, state)| task::state(state)),
    }
}

fn spec(spec: &ScheduleSpec, with_payload: bool) -> v1::ScheduleSpec {
    let rule = match &spec.rule {
        ScheduleRule::Interval { every, .. } => Rule::Interval(duration(*every)),
        ScheduleRule::Cron(cron) => Rule::Cron(v1::CronRule {
            pattern: cron.pattern().to_owned(),
            time_zone: cron.zone().name().to_owned(),
            dst_policy: i32::from(cron.dst() as u8),
        }),
    };
    v1::ScheduleSpec {
        rule: Some(rule),
        start_at: spec.start_at.map(timestamp),
        end_at: spec.end_at.map(timestamp),
        max_runs: spec.max_runs.map_or(0, to_i64),
        jitter: Some(duration(spec.jitter)),
        catch_up_window: Some(duration(spec.catch_up_window)),
        overlap: i32::from(spec.overlap as u8),
        task: Some(template(&spec.task, with_payload)),
    }
}

/// The submission of which a task of a schedule could come.
fn template(spec: &Arc<TaskSpec>, with_payload: bool) -> v1::SubmitTaskRequest {
    let (options, extras) = (&spec.options, spec.extras());
    let payload = with_payload.then(|| v1::Payload {
        kind: Some(Kind::Data(TaskSpec::payload_of(spec))),
        content_type: options.content_type.to_string(),
    });
    v1::SubmitTaskRequest {
        handler: options.handler.to_string(),
        payload,
        priority: task::priority(options.priority),
        pool: options.pool.to_string(),
        display_name: options.display_name.to_string(),
        labels: options.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        timeout: Some(duration(options.timeout)),
        retry: Some(task::retry(&options.retry)),
        args: extras.args.iter().map(ToString::to_string).collect(),
        delay: extras.delay.map(duration),
        at_most_once: options.at_most_once,
        durability: task::durability(options.durability),
        namespace: options.namespace.to_string(),
        expires_after: extras.expires_after.map(duration),
        limits: task::limits_of(options),
        ..v1::SubmitTaskRequest::default()
    }
}
