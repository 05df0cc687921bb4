//! Schedules: runs on time, overlaps, pauses and changes, and servers that are killed or whose clock is set in the middle.

use std::collections::BTreeSet;

use lineshaft::proto::v1::{self, DstPolicy, OverlapPolicy, RunKind, ScheduleState, TaskState, schedule_spec::Rule};
use tonic::{Code, Status};

use crate::support::{Faults, Server, check, eventually, fields, noop, reason, seconds, task};

const CONFIG: &str = r#"
[[pool]]
name = "default"
size = 4
[[pool]]
name = "naps"
kind = "async"
size = 100
[[pool]]
name = "small"
size = 1
queue_limit = 1
paused = true
[[handler]]
name = "nap"
runner = "builtin"
builtin = "io"
pool = "naps"
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo broken >&2; exit 3"]
retry = { attempts = 1 }
"#;

struct Fixture {
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        Self { server: Server::start(CONFIG) }
    }

    fn with_faults(faults: &Faults) -> Self {
        let variables = faults.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        Self { server: Server::start_with(CONFIG, &variables) }
    }

    async fn create(&self, id: &str, spec: v1::ScheduleSpec) -> Result<v1::CreateScheduleResponse, Status> {
        let request = v1::CreateScheduleRequest {
            schedule_id: id.into(),
            spec: Some(spec),
            ..v1::CreateScheduleRequest::default()
        };
        self.server.schedules().create_schedule(request).await.map(tonic::Response::into_inner)
    }

    async fn get(&self, id: &str) -> Result<v1::Schedule, Status> {
        let response = self.server.schedules().get_schedule(v1::GetScheduleRequest { schedule_id: id.into() }).await?;
        Ok(response.into_inner().schedule.unwrap())
    }

    async fn update(&self, id: &str, spec: v1::ScheduleSpec, etag: &str) -> Result<v1::Schedule, Status> {
        let request = v1::UpdateScheduleRequest { schedule_id: id.into(), spec: Some(spec), etag: etag.into() };
        Ok(self.server.schedules().update_schedule(request).await?.into_inner().schedule.unwrap())
    }

    async fn pause(&self, id: &str) -> v1::Schedule {
        let request = v1::PauseScheduleRequest { schedule_id: id.into() };
        self.server.schedules().pause_schedule(request).await.unwrap().into_inner().schedule.unwrap()
    }

    async fn resume(&self, id: &str) -> v1::Schedule {
        let request = v1::ResumeScheduleRequest { schedule_id: id.into() };
        self.server.schedules().resume_schedule(request).await.unwrap().into_inner().schedule.unwrap()
    }

    async fn trigger(&self, id: &str, allow_overlap: bool) -> Result<v1::TriggerScheduleResponse, Status> {
        let request = v1::TriggerScheduleRequest { schedule_id: id.into(), allow_overlap };
        self.server.schedules().trigger_schedule(request).await.map(tonic::Response::into_inner)
    }

    async fn delete(&self, id: &str) -> Result<v1::DeleteScheduleResponse, Status> {
        let request = v1::DeleteScheduleRequest { schedule_id: id.into(), etag: String::new() };
        self.server.schedules().delete_schedule(request).await.map(tonic::Response::into_inner)
    }

    async fn preview(&self, request: v1::PreviewScheduleRequest) -> Result<Vec<i64>, Status> {
        let response = self.server.schedules().preview_schedule(request).await?.into_inner();
        Ok(response.times.iter().map(|time| time.seconds).collect())
    }

    /// Waits until the schedule is as `reached` says.
    async fn wait(&self, id: &str, reached: impl Fn(&v1::Schedule) -> bool) -> v1::Schedule {
        eventually(async || {
            let schedule = self.get(id).await.unwrap();
            check(reached(&schedule), || format!("not reached: {schedule:?}")).map(|()| schedule)
        })
        .await
    }

    /// The times in the IDs of all tasks of the schedule, in order.
    async fn times(&self, id: &str) -> Vec<String> {
        let request = v1::ListTasksRequest { page_size: 1_000, ..v1::ListTasksRequest::default() };
        let tasks = self.server.tasks().list_tasks(request).await.unwrap().into_inner().tasks;
        let prefix = format!("{id}:");
        let mut times: Vec<_> =
            tasks.iter().filter_map(|task| task.task_id.strip_prefix(&prefix)).map(str::to_owned).collect();
        times.sort();
        times
    }
}

fn every(interval: i64, task: v1::SubmitTaskRequest) -> v1::ScheduleSpec {
    let rule = Some(Rule::Interval(seconds(interval).unwrap()));
    // So that no run depends on how fast the one before is.
    let overlap = OverlapPolicy::Allow.into();
    v1::ScheduleSpec { rule, task: Some(task), overlap, ..v1::ScheduleSpec::default() }
}

fn cron(pattern: &str, time_zone: &str) -> v1::ScheduleSpec {
    let rule = v1::CronRule { pattern: pattern.into(), time_zone: time_zone.into(), dst_policy: 0 };
    v1::ScheduleSpec { rule: Some(Rule::Cron(rule)), ..every(1, noop()) }
}

fn overlapping(policy: OverlapPolicy) -> v1::ScheduleSpec {
    v1::ScheduleSpec { overlap: policy.into(), ..every(1, task("nap", "3600")) }
}

/// The second of the day of a time such as `20260131T235959Z`.
fn second(time: &str) -> u32 {
    let number = |from: usize| time[from..from + 2].parse::<u32>().unwrap();
    number(9) * 3_600 + number(11) * 60 + number(13)
}

/// # Panics
/// If a second between the first and the last is missing.
fn every_second_has_run(times: &[String]) {
    let seconds: BTreeSet<u32> = times.iter().map(|time| second(time)).collect();
    assert_eq!(seconds.len(), times.len(), "each run has one task: {times:?}");
    let (first, last) = (seconds.first().unwrap(), seconds.last().unwrap());
    // A test that runs over midnight has both ends of the day.
    let length = if last - first > 43_200 { seconds.len() } else { (last - first + 1) as usize };
    assert_eq!(seconds.len(), length, "no run is left out: {times:?}");
}

#[tokio::test]
async fn a_schedule_runs_at_its_times() {
    let fixture = Fixture::new();
    let created = fixture.create("s", cron("* * * * * *", "Europe/Berlin")).await.unwrap();
    let schedule = created.schedule.unwrap();
    assert_eq!((schedule.state(), schedule.run_count, created.duplicate), (ScheduleState::Active, 0, false));
    assert!(schedule.next_run_at.unwrap().seconds >= schedule.created_at.unwrap().seconds);
    let repeated = fixture.create("s", cron("* * * * * *", "Europe/Berlin")).await.unwrap();
    assert!(repeated.duplicate);
    let schedule = fixture.wait("s", |schedule| schedule.run_count >= 3).await;
    let run = schedule.last_run.unwrap();
    assert!(run.task_id.starts_with("s:20") && run.task_id.ends_with('Z'), "{}", run.task_id);
    let late = run.submitted_at.unwrap().seconds - run.time.unwrap().seconds;
    assert!((0..60).contains(&late) && run.time.unwrap().nanos == 0, "{late} s late");
    fixture.pause("s").await;
    every_second_has_run(&fixture.times("s").await);
    let task = fixture.server.wait_finished(&run.task_id).await;
    assert_eq!((task.state(), task.handler.as_str()), (TaskState::Completed, "compute"));
}

#[tokio::test]
async fn a_killed_server_leaves_out_and_repeats_no_run() {
    let mut fixture = Fixture::new();
    let names = ["s0", "s1", "s2"];
    for name in names {
        fixture.create(name, every(1, noop())).await.unwrap();
    }
    for kills in 1..=3 {
        fixture.wait("s2", |schedule| schedule.run_count >= 2 * kills).await;
        fixture.server.kill9();
        fixture.server.start_again();
    }
    for name in names {
        fixture.wait(name, |schedule| schedule.run_count >= 8).await;
        let schedule = fixture.pause(name).await;
        let times = fixture.times(name).await;
        assert_eq!(times.len(), usize::try_from(schedule.run_count).unwrap(), "{times:?}");
        assert_eq!(schedule.skipped_count, 0, "{schedule:?}");
        every_second_has_run(&times);
    }
}

#[tokio::test]
async fn runs_that_are_too_late_are_missed_and_counted() {
    let faults = Faults::new();
    let mut fixture = Fixture::with_faults(&faults);
    let spec = v1::ScheduleSpec { catch_up_window: seconds(60), ..every(1, noop()) };
    fixture.create("s", spec).await.unwrap();
    fixture.create("none", v1::ScheduleSpec { catch_up_window: seconds(0), ..every(1, noop()) }).await.unwrap();
    fixture.wait("s", |schedule| schedule.run_count >= 1).await;
    fixture.server.kill9();
    // The server was down for an hour.
    faults.set(&["time 3600 *"]);
    fixture.server.start_again();
    let schedule = fixture.wait("s", |schedule| schedule.caught_up_count >= 50).await;
    assert!((1_000..3_600).contains(&schedule.missed_count), "at most 1,000 are counted at a time: {schedule:?}");
    let schedule = fixture.wait("none", |schedule| schedule.missed_count >= 1_000).await;
    assert_eq!(schedule.caught_up_count, 0);
}

#[tokio::test]
async fn a_clock_that_is_set_repeats_no_run() {
    let faults = Faults::new();
    let mut fixture = Fixture::with_faults(&faults);
    fixture.create("s", every(1, noop())).await.unwrap();
    fixture.create("daily", cron("0 0 * * *", "")).await.unwrap();
    fixture.wait("s", |schedule| schedule.run_count >= 2).await;
    // While it runs, and while it is stopped.
    faults.set(&["time 7200 *"]);
    fixture.server.wait_logged("the system clock was set forward by 2h").await;
    let before = fixture.wait("s", |schedule| schedule.run_count >= 4).await;
    assert!(before.run_count < 600, "a step forward starts no run early: {before:?}");
    fixture.server.kill9();
    faults.set(&["time -3600 *"]);
    fixture.server.start_again();
    // An interval goes on at once, although the clock is behind the last run.
    let after = fixture.wait("s", |schedule| schedule.run_count >= before.run_count + 3).await;
    assert!(after.last_run.unwrap().time.unwrap().seconds > before.last_run.unwrap().time.unwrap().seconds);
    let schedule = fixture.pause("s").await;
    let times = fixture.times("s").await;
    assert_eq!(times.len(), usize::try_from(schedule.run_count).unwrap());
    every_second_has_run(&times);
    assert_eq!(fixture.get("daily").await.unwrap().run_count, 0);
}

#[tokio::test]
async fn a_schedule_with_an_unfinished_task_skips_its_runs() {
    let fixture = Fixture::new();
    fixture.create("s", overlapping(OverlapPolicy::Skip)).await.unwrap();
    let schedule = fixture.wait("s", |schedule| schedule.skipped_count >= 2).await;
    assert_eq!((schedule.run_count, schedule.unfinished_task_ids.len()), (1, 1));
    let busy = fixture.trigger("s", false).await.unwrap_err();
    assert_eq!((busy.code(), reason(&busy).as_str()), (Code::FailedPrecondition, "SCHEDULE_BUSY"));
    let second = fixture.trigger("s", true).await.unwrap();
    let run = second.schedule.unwrap().last_run.unwrap();
    assert_eq!((run.kind(), run.task_id.as_str()), (RunKind::Triggered, second.task_id.as_str()));
    let schedule = fixture.get("s").await.unwrap();
    assert_eq!((schedule.run_count, schedule.triggered_count, schedule.unfinished_task_ids.len()), (2, 1, 2));
}

#[tokio::test]
async fn a_run_that_is_queued_starts_when_the_task_before_has_ended() {
    let mut fixture = Fixture::new();
    fixture.create("s", overlapping(OverlapPolicy::Queue)).await.unwrap();
    let schedule = fixture.wait("s", |schedule| schedule.waiting_run_at.is_some() && schedule.skipped_count > 0).await;
    assert_eq!(schedule.run_count, 1);
    let waiting = schedule.waiting_run_at;
    fixture.server.kill9();
    fixture.server.start_again();
    assert_eq!(fixture.get("s").await.unwrap().waiting_run_at, waiting);
    let cancel = v1::CancelTaskRequest { task_id: schedule.unfinished_task_ids[0].clone(), ..Default::default() };
    fixture.server.tasks().cancel_task(cancel).await.unwrap();
    let schedule = fixture.wait("s", |schedule| schedule.run_count == 2).await;
    let run = schedule.last_run.unwrap();
    assert_eq!((run.kind(), run.time), (RunKind::Waited, waiting));
}

#[tokio::test]
async fn a_new_run_cancels_the_old_one() {
    let fixture = Fixture::new();
    fixture.create("s", overlapping(OverlapPolicy::CancelOld)).await.unwrap();
    fixture.wait("s", |schedule| schedule.run_count >= 3).await;
    let schedule = fixture.pause("s").await;
    assert!(schedule.unfinished_task_ids.len() <= 1, "{schedule:?}");
    let times = fixture.times("s").await;
    let first = fixture.server.wait_finished(&format!("s:{}", times[0])).await;
    assert_eq!(first.state(), TaskState::Cancelled);
    assert_eq!(first.cancel.unwrap().reason, "the next run of the schedule is due");
}

#[tokio::test]
async fn overlapping_runs_are_allowed_on_request() {
    let fixture = Fixture::new();
    fixture.create("s", overlapping(OverlapPolicy::Allow)).await.unwrap();
    let schedule = fixture.wait("s", |schedule| schedule.unfinished_task_ids.len() >= 3).await;
    assert_eq!(schedule.skipped_count, 0);
}

#[tokio::test]
async fn a_paused_schedule_starts_nothing_and_catches_up_nothing() {
    let fixture = Fixture::new();
    fixture.create("s", every(1, noop())).await.unwrap();
    fixture.wait("s", |schedule| schedule.run_count >= 1).await;
    let paused = fixture.pause("s").await;
    assert_eq!((paused.state(), paused.next_run_at), (ScheduleState::Paused, None));
    // Another schedule shows that time passes.
    fixture.create("other", every(1, noop())).await.unwrap();
    fixture.wait("other", |schedule| schedule.run_count >= 3).await;
    assert_eq!(fixture.get("s").await.unwrap().run_count, paused.run_count);
    let resumed = fixture.resume("s").await;
    assert!(resumed.next_run_at.unwrap().seconds >= paused.updated_at.unwrap().seconds + 2, "{resumed:?}");
    let running = fixture.wait("s", |schedule| schedule.run_count > paused.run_count).await;
    assert_eq!((running.missed_count, running.caught_up_count), (0, 0));
    assert_ne!(running.etag, paused.etag);
}

#[tokio::test]
async fn a_schedule_finishes_after_its_runs_and_an_update_lets_it_go_on() {
    let fixture = Fixture::new();
    let spec = v1::ScheduleSpec { max_runs: 2, ..every(1, task("fails", "0")) };
    let created = fixture.create("s", spec).await.unwrap().schedule.unwrap();
    let finished =
        fixture.wait("s", |schedule| schedule.state() == ScheduleState::Finished && schedule.error_count == 2).await;
    assert_eq!((finished.run_count, finished.next_run_at), (2, None));
    let error = finished.last_error.unwrap();
    assert_eq!(error.task_id, finished.last_run.unwrap().task_id);
    assert_eq!((error.reason(), error.message.is_empty()), (v1::FailureReason::HandlerError, false), "{error:?}");
    let mut spec = created.spec.unwrap();
    spec.max_runs = 3;
    let stale = fixture.update("s", spec.clone(), "0").await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let updated = fixture.update("s", spec, &created.etag).await.unwrap();
    assert_eq!((updated.state(), updated.run_count), (ScheduleState::Active, 2));
    fixture.wait("s", |schedule| schedule.run_count == 3).await;
    fixture.delete("s").await.unwrap();
    assert_eq!(reason(&fixture.get("s").await.unwrap_err()), "SCHEDULE_NOT_FOUND");
    assert_eq!(fixture.times("s").await.len(), 3, "its tasks stay");
}

#[tokio::test]
async fn a_run_that_a_full_pool_refuses_starts_later() {
    let fixture = Fixture::new();
    let to_small = |json: &str| v1::SubmitTaskRequest { pool: "small".into(), ..task("compute", json) };
    fixture.server.submit(to_small("1")).await;
    fixture.create("s", v1::ScheduleSpec { max_runs: 1, ..every(1, to_small("2")) }).await.unwrap();
    fixture.create("other", every(1, noop())).await.unwrap();
    fixture.wait("other", |schedule| schedule.run_count >= 3).await;
    assert_eq!(fixture.get("s").await.unwrap().run_count, 0);
    fixture.server.set_paused("small", false).await;
    fixture.wait("s", |schedule| schedule.run_count == 1).await;
}

#[tokio::test]
async fn the_next_times_of_a_rule_are_shown_without_a_schedule() {
    let fixture = Fixture::new();
    let mut spec = cron("30 2 * * *", "Europe/Berlin");
    // The night in which the clocks go forward.
    spec.start_at = Some(prost_types::Timestamp { seconds: 1_806_148_800, nanos: 0 });
    let preview = |spec: &v1::ScheduleSpec| v1::PreviewScheduleRequest {
        spec: Some(spec.clone()),
        count: 2,
        ..v1::PreviewScheduleRequest::default()
    };
    assert_eq!(fixture.preview(preview(&spec)).await.unwrap(), [1_806_195_600, 1_806_280_200]);
    let Some(Rule::Cron(rule)) = &mut spec.rule else { unreachable!() };
    rule.set_dst_policy(DstPolicy::Skip);
    assert_eq!(fixture.preview(preview(&spec)).await.unwrap(), [1_806_280_200, 1_806_366_600]);
    fixture.create("s", spec).await.unwrap();
    let of_schedule = v1::PreviewScheduleRequest { schedule_id: "s".into(), ..Default::default() };
    assert_eq!(fixture.preview(of_schedule.clone()).await.unwrap().len(), 10);
    fixture.pause("s").await;
    assert_eq!(fixture.preview(of_schedule).await.unwrap().len(), 0);
    let neither = fixture.preview(v1::PreviewScheduleRequest::default()).await.unwrap_err();
    assert_eq!(fields(&neither), ["schedule_id"]);
}

#[tokio::test]
async fn schedules_are_listed_newest_first_by_their_conditions() {
    let fixture = Fixture::new();
    for number in 0..5 {
        fixture.create(&format!("s{number}"), every(3_600, noop())).await.unwrap();
    }
    fixture.pause("s1").await;
    let list = async |request: v1::ListSchedulesRequest| {
        fixture.server.schedules().list_schedules(request).await.map(tonic::Response::into_inner)
    };
    let ids = |response: &v1::ListSchedulesResponse| {
        response.schedules.iter().map(|schedule| schedule.schedule_id.clone()).collect::<Vec<_>>()
    };
    let first = list(v1::ListSchedulesRequest { page_size: 3, ..Default::default() }).await.unwrap();
    assert_eq!(ids(&first), ["s4", "s3", "s2"]);
    assert_eq!(first.schedules[0].spec.as_ref().unwrap().task.as_ref().unwrap().payload, None);
    let page_token = first.next_page_token;
    let rest = v1::ListSchedulesRequest { page_size: 3, page_token: page_token.clone(), ..Default::default() };
    assert_eq!(ids(&list(rest).await.unwrap()), ["s1", "s0"]);
    let states = vec![ScheduleState::Paused.into()];
    assert_eq!(ids(&list(v1::ListSchedulesRequest { states, ..Default::default() }).await.unwrap()), ["s1"]);
    let other = v1::ListSchedulesRequest { page_token, namespace: "x".into(), ..Default::default() };
    assert_eq!(fields(&list(other).await.unwrap_err()), ["page_token"]);
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let fixture = Fixture::new();
    let refused = async |spec: v1::ScheduleSpec| fields(&fixture.create("s", spec).await.unwrap_err());
    let nanosecond = Some(Rule::Interval(prost_types::Duration { seconds: 0, nanos: 1 }));
    assert_eq!(refused(v1::ScheduleSpec { rule: nanosecond, ..every(1, noop()) }).await, ["spec.interval"]);
    assert_eq!(refused(v1::ScheduleSpec { rule: None, ..every(1, noop()) }).await, ["spec"]);
    assert_eq!(refused(cron("0 0 30 2 *", "Mars/Olympus")).await, ["spec.cron.time_zone", "spec.cron.pattern"]);
    let error = fixture.create("s", cron("* * * * *", "Europe/Berln")).await.unwrap_err();
    assert!(
        error.message().ends_with("is `Europe/Berln`, which is not an IANA time zone; did you mean `Europe/Berlin`?")
    );
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let spec = v1::ScheduleSpec {
        start_at: at(2_000_000_000),
        end_at: at(1_900_000_000),
        max_runs: -1,
        jitter: seconds(86_401),
        catch_up_window: seconds(-1),
        overlap: 9,
        ..every(1, noop())
    };
    let names = ["end_at", "max_runs", "jitter", "catch_up_window", "overlap"].map(|name| format!("spec.{name}"));
    assert_eq!(refused(spec).await, names);
    assert_eq!(refused(v1::ScheduleSpec { end_at: at(1_000_000_000), ..every(1, noop()) }).await, ["spec"]);
    assert_eq!(refused(v1::ScheduleSpec { task: None, ..every(1, noop()) }).await, ["spec.task"]);
    let with_ids = v1::SubmitTaskRequest {
        task_id: "t".into(),
        request_id: "r".into(),
        batch_id: "b".into(),
        trace_mode: 1,
        namespace: "other".into(),
        ..noop()
    };
    let names =
        ["task_id", "request_id", "batch_id", "trace_mode", "namespace"].map(|name| format!("spec.task.{name}"));
    assert_eq!(refused(every(1, with_ids)).await, names);
    let large = task("compute", &format!("\"{}\"", "x".repeat(64 << 10)));
    assert_eq!(refused(every(1, large)).await, ["spec.task.payload"]);
    let unknown = fixture.create("s", every(1, task("nosuch", "1"))).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "UNKNOWN_HANDLER"));
    for id in ["", "a b", "a/b", &"x".repeat(41)] {
        assert_eq!(fields(&fixture.create(id, every(1, noop())).await.unwrap_err()), ["schedule_id"], "{id}");
    }
    fixture.create("s", every(1, noop())).await.unwrap();
    let exists = fixture.create("s", every(2, noop())).await.unwrap_err();
    assert_eq!((exists.code(), reason(&exists).as_str()), (Code::AlreadyExists, "SCHEDULE_EXISTS"));
    assert_eq!(reason(&fixture.delete("t").await.unwrap_err()), "SCHEDULE_NOT_FOUND");
}
