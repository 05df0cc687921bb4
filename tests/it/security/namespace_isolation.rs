//! Isolation of namespaces: a tenant can neither see nor guess nor change the tasks of another tenant.

use std::collections::BTreeSet;

use lineshaft::proto::v1::{
    self, TaskState, schedule_spec::Rule, submit_tasks_response::Outcome, watch_tasks_response,
};
use tonic::{Code, Status};

use super::{Caller, Tokens};
use crate::support::{Server, TIMEOUT, noop, reason, seconds, task};

const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

struct Tenants {
    _tokens: Tokens,
    server: Server,
    a: Caller,
    b: Caller,
    all: Caller,
    /// Tasks of A: one with a chosen id, one with a generated id, one that has ended.
    ids: [String; 3],
}

async fn tenants() -> Tenants {
    let tokens = Tokens::new();
    let a = tokens.create("a", "operator", "team-a", &[]);
    let b = tokens.create("b", "operator", "team-b", &[]);
    let all = tokens.create("all", "admin", "*", &[]);
    let server = tokens.serve("");
    let [a, b, all] = [a, b, all].map(|token| Caller::new(&server, &token));
    let named = v1::SubmitTaskRequest {
        task_id: "nightly".into(),
        request_id: "once".into(),
        labels: [("owner".to_owned(), "a".to_owned())].into(),
        ..task("io", "3600")
    };
    let named = submit(&a, named).await.unwrap();
    let plain = submit(&a, task("io", "3600")).await.unwrap();
    let ended = submit(&a, noop()).await.unwrap();
    wait(&a, &ended).await.unwrap();
    Tenants { _tokens: tokens, server, a, b, all, ids: [named, plain, ended] }
}

async fn submit(caller: &Caller, request: v1::SubmitTaskRequest) -> Result<String, Status> {
    caller.tasks().submit_task(request).await.map(|answer| answer.into_inner().task_id)
}

async fn get(caller: &Caller, id: &str) -> Result<v1::Task, Status> {
    let request = v1::GetTaskRequest { task_id: id.into(), include_payload: true, ..Default::default() };
    caller.tasks().get_task(request).await.map(|answer| answer.into_inner().task.unwrap())
}

async fn wait(caller: &Caller, id: &str) -> Result<v1::WaitTaskResponse, Status> {
    let request = v1::WaitTaskRequest { task_id: id.into(), timeout: seconds(60) };
    caller.tasks().wait_task(request).await.map(tonic::Response::into_inner)
}

async fn cancel(caller: &Caller, id: &str) -> Result<v1::CancelTaskResponse, Status> {
    let request = v1::CancelTaskRequest { task_id: id.into(), ..v1::CancelTaskRequest::default() };
    caller.tasks().cancel_task(request).await.map(tonic::Response::into_inner)
}

async fn output(caller: &Caller, id: &str) -> Result<(), Status> {
    let request = v1::ReadOutputRequest { task_id: id.into(), ..v1::ReadOutputRequest::default() };
    caller.tasks().read_output(request).await.map(|_| ())
}

async fn list(caller: &Caller, filter: v1::TaskFilter) -> Result<Vec<v1::Task>, Status> {
    let request = v1::ListTasksRequest { filter: Some(filter), ..v1::ListTasksRequest::default() };
    caller.tasks().list_tasks(request).await.map(|answer| answer.into_inner().tasks)
}

fn in_namespace(name: &str) -> v1::TaskFilter {
    v1::TaskFilter { namespace: name.into(), ..v1::TaskFilter::default() }
}

/// Everything of an error that a caller sees, without the id in the request.
fn visible(status: &Status, id: &str) -> String {
    let text = format!("{:?} {} {}", status.code(), status.message(), reason(status));
    text.replace(id, "ID")
}

#[tokio::test]
async fn a_foreign_task_looks_like_one_that_does_not_exist() {
    let Tenants { b, ids, a, .. } = &tenants().await;
    assert_eq!(ids[0], "team-a/nightly");
    for id in ids {
        let unknown = if id.contains('/') { "team-a/unknown" } else { UNKNOWN };
        let pairs = [
            (get(b, id).await.unwrap_err(), get(b, unknown).await.unwrap_err()),
            (wait(b, id).await.unwrap_err(), wait(b, unknown).await.unwrap_err()),
            (cancel(b, id).await.unwrap_err(), cancel(b, unknown).await.unwrap_err()),
            (output(b, id).await.unwrap_err(), output(b, unknown).await.unwrap_err()),
        ];
        for (foreign, missing) in pairs {
            assert_eq!((foreign.code(), reason(&foreign).as_str()), (Code::NotFound, "TASK_NOT_FOUND"), "{foreign:?}");
            assert_eq!(visible(&foreign, id), visible(&missing, unknown));
        }
    }
    for (id, state) in [(&ids[0], TaskState::Running), (&ids[1], TaskState::Running), (&ids[2], TaskState::Completed)] {
        let task = get(a, id).await.unwrap();
        assert!(task.state() == state || task.state() == TaskState::Queued, "{task:?}");
        assert!(task.cancel.is_none(), "the task is unchanged");
    }
}

#[tokio::test]
async fn tenants_may_use_the_same_ids() {
    let Tenants { a, b, all, .. } = &tenants().await;
    let same =
        || v1::SubmitTaskRequest { task_id: "nightly".into(), request_id: "once".into(), ..task("compute", "7") };
    let answer = b.tasks().submit_task(same()).await.unwrap().into_inner();
    assert_eq!((answer.task_id.as_str(), answer.duplicate), ("team-b/nightly", false));
    // A repeated request is a duplicate in its own namespace only.
    assert!(b.tasks().submit_task(same()).await.unwrap().into_inner().duplicate);
    let other = v1::SubmitTaskRequest { priority: v1::Priority::High.into(), ..same() };
    let refused = submit(b, other).await.unwrap_err();
    assert!(!refused.message().contains("team-a"), "{refused:?}");
    // An id without a namespace refers to the caller's own.
    assert_eq!(get(a, "nightly").await.unwrap().handler, "io");
    assert_eq!(get(b, "nightly").await.unwrap().handler, "compute");
    assert_eq!(get(all, "team-a/nightly").await.unwrap().namespace, "team-a");
    assert_eq!(get(all, "nightly").await.unwrap_err().code(), Code::NotFound, "there is none in `default`");
    // A chosen UUID is an id like any other.
    let chosen = || v1::SubmitTaskRequest { task_id: UNKNOWN.into(), ..noop() };
    assert_eq!(submit(a, chosen()).await.unwrap(), format!("team-a/{UNKNOWN}"));
    assert_eq!(submit(b, chosen()).await.unwrap(), format!("team-b/{UNKNOWN}"));
    for (caller, namespace) in [(a, "team-a"), (b, "team-b")] {
        assert_eq!(get(caller, UNKNOWN).await.unwrap().namespace, namespace);
        wait(caller, UNKNOWN).await.unwrap();
    }
}

#[tokio::test]
async fn lists_watches_and_deletes_are_limited_to_the_own_namespace() {
    let Tenants { a, b, all, ids, .. } = &tenants().await;
    let mine = submit(b, noop()).await.unwrap();
    wait(b, &mine).await.unwrap();
    let filters = [
        v1::TaskFilter::default(),
        in_namespace("team-b"),
        v1::TaskFilter { task_ids: [&ids[..], std::slice::from_ref(&mine)].concat(), ..v1::TaskFilter::default() },
    ];
    for filter in filters {
        let found: Vec<_> = list(b, filter).await.unwrap().into_iter().map(|task| task.task_id).collect();
        assert_eq!(found, [mine.as_str()]);
    }
    let owner = [("owner".to_owned(), "a".to_owned())].into();
    assert!(list(b, v1::TaskFilter { labels: owner, ..v1::TaskFilter::default() }).await.unwrap().is_empty());
    // A page token of another tenant gives no access.
    let first = v1::ListTasksRequest { page_size: 1, ..v1::ListTasksRequest::default() };
    let page = a.tasks().list_tasks(first).await.unwrap().into_inner();
    let stolen = v1::ListTasksRequest { page_token: page.next_page_token, ..v1::ListTasksRequest::default() };
    let found = b.tasks().list_tasks(stolen).await.unwrap().into_inner().tasks;
    assert!(found.iter().all(|task| task.namespace == "team-b"), "{found:?}");
    // An existing foreign namespace looks like one that does not exist.
    for (foreign, missing) in [
        (list(b, in_namespace("team-a")).await.unwrap_err(), list(b, in_namespace("team-x")).await.unwrap_err()),
        (watch(b, in_namespace("team-a")).await.unwrap_err(), watch(b, in_namespace("team-x")).await.unwrap_err()),
        (delete(b, in_namespace("team-a")).await.unwrap_err(), delete(b, in_namespace("team-x")).await.unwrap_err()),
    ] {
        assert_eq!(foreign.code(), Code::PermissionDenied);
        assert_eq!(visible(&foreign, "team-a"), visible(&missing, "team-x"));
    }
    assert_eq!(watch(b, v1::TaskFilter::default()).await.unwrap(), ["team-b".to_owned()].into());
    assert_eq!(watch(all, v1::TaskFilter::default()).await.unwrap().len(), 2);
    assert_eq!(delete(b, v1::TaskFilter::default()).await.unwrap(), 1);
    assert_eq!(get(a, &ids[2]).await.unwrap().state(), TaskState::Completed);
}

async fn delete(caller: &Caller, filter: v1::TaskFilter) -> Result<i64, Status> {
    let request = v1::DeleteTasksRequest { filter: Some(filter), validate_only: false };
    caller.tasks().delete_tasks(request).await.map(|answer| answer.into_inner().deleted)
}

/// The namespaces in a watch from the beginning and in a snapshot.
async fn watch(caller: &Caller, filter: v1::TaskFilter) -> Result<BTreeSet<String>, Status> {
    let mut namespaces = BTreeSet::new();
    let info = caller.system().get_server_info(v1::GetServerInfoRequest {}).await?.into_inner();
    let start = info.oldest_resume_token;
    for include_snapshot in [true, false] {
        let request = v1::WatchTasksRequest {
            filter: Some(filter.clone()),
            resume_token: if include_snapshot { String::new() } else { start.clone() },
            include_snapshot,
            progress_interval: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
        };
        let mut steps = caller.tasks().watch_tasks(request).await?.into_inner();
        loop {
            let step = tokio::time::timeout(TIMEOUT, steps.message()).await.expect("a step")?;
            match step.and_then(|step| step.kind) {
                Some(watch_tasks_response::Kind::SnapshotEntry(task)) => _ = namespaces.insert(task.namespace),
                Some(watch_tasks_response::Kind::Event(event)) => _ = namespaces.insert(event.namespace),
                Some(watch_tasks_response::Kind::SnapshotComplete(_)) => {}
                // No further events.
                Some(watch_tasks_response::Kind::Progress(_)) | None => break,
            }
        }
    }
    Ok(namespaces)
}

#[tokio::test]
async fn no_rpc_submits_into_a_foreign_namespace() {
    let Tenants { b, all, .. } = &tenants().await;
    let foreign = || v1::SubmitTaskRequest { namespace: "team-a".into(), ..noop() };
    let own = || v1::SubmitTaskRequest { namespace: "team-b".into(), ..noop() };
    assert_eq!(submit(b, foreign()).await.unwrap_err().code(), Code::PermissionDenied);
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![own(), foreign()], batch_id: String::new() };
    assert_eq!(b.tasks().batch_submit_tasks(batch).await.unwrap_err().code(), Code::PermissionDenied);
    let run = b.tasks().run_task(v1::RunTaskRequest { task: Some(foreign()) }).await;
    assert_eq!(run.unwrap_err().code(), Code::PermissionDenied);
    let items = [foreign(), own()].into_iter().enumerate();
    let items = items.map(|(index, task)| v1::SubmitTasksRequest { sequence: index as u64, task: Some(task) });
    let mut answers = b.tasks().submit_tasks(tokio_stream::iter(items.collect::<Vec<_>>())).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.outcome.unwrap() {
            Outcome::Rejected(rejection) => assert_eq!((answer.sequence, &*rejection.reason), (0, "PERMISSION_DENIED")),
            Outcome::Accepted(_) => assert_eq!(answer.sequence, 1),
        }
    }
    let slashed = v1::SubmitTaskRequest { task_id: "team-a/nightly".into(), ..noop() };
    assert_eq!(submit(b, slashed).await.unwrap_err().code(), Code::InvalidArgument);
    let tasks = list(all, v1::TaskFilter::default()).await.unwrap();
    assert_eq!(tasks.iter().filter(|task| task.namespace == "team-a").count(), 3, "{tasks:?}");
    assert_eq!(tasks.iter().filter(|task| task.submitted_by == "key:b").count(), 1, "{tasks:?}");
}

#[tokio::test]
async fn data_of_all_tenants_requires_a_role_in_all_namespaces() {
    let Tenants { a, all, server, .. } = &tenants().await;
    let name = "default".to_owned();
    let metrics = v1::GetPoolMetricsRequest { name: name.clone(), include_workers: true };
    let stream = v1::StreamPoolMetricsRequest::default();
    let workers = v1::ListWorkersRequest { pool: name.clone(), ..Default::default() };
    for refused in [
        a.pools().get_pool_metrics(metrics.clone()).await.unwrap_err(),
        a.pools().stream_pool_metrics(stream.clone()).await.unwrap_err(),
        a.pools().list_workers(workers.clone()).await.unwrap_err(),
        a.system().get_system_health(v1::GetSystemHealthRequest {}).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let shown = all.pools().list_workers(workers).await.unwrap().into_inner().workers;
    assert!(shown.iter().any(|worker| worker.current_task_id == "team-a/nightly"), "{shown:?}");
    all.pools().get_pool_metrics(metrics).await.unwrap();
    all.pools().stream_pool_metrics(stream).await.unwrap();
    // The configuration of pools is visible to every caller.
    assert_eq!(a.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools.len(), 2);
    assert_eq!(
        a.pools().get_pool(v1::GetPoolRequest { name }).await.unwrap().into_inner().pool.unwrap().name,
        "default"
    );
    drop(server.log());
}

#[tokio::test]
async fn a_batch_of_another_tenant_does_not_exist() {
    let tenants = tenants().await;
    let (a, b) = (&tenants.a, &tenants.b);
    let tasks = || vec![task("io", "3600")];
    let named = v1::BatchSubmitTasksRequest { tasks: tasks(), batch_id: "nightly".into() };
    let named = a.tasks().batch_submit_tasks(named).await.unwrap().into_inner().batch_id;
    let generated = v1::BatchSubmitTasksRequest { tasks: tasks(), batch_id: String::new() };
    let generated = a.tasks().batch_submit_tasks(generated).await.unwrap().into_inner().batch_id;
    assert_eq!(named, "team-a/nightly");
    let get = async |caller: &Caller, id: &str| {
        let got = caller.batches().get_batch(v1::GetBatchRequest { batch_id: id.into() }).await;
        got.map(|response| response.into_inner().batch.unwrap())
    };
    for id in [&*named, "nightly", &generated] {
        assert_eq!(get(a, id).await.unwrap().namespace, "team-a", "{id}");
    }
    assert_eq!(get(&tenants.all, &generated).await.unwrap().batch_id, generated);
    for id in [&*named, &generated, UNKNOWN, "nightly"] {
        assert_eq!(reason(&get(b, id).await.unwrap_err()), "BATCH_NOT_FOUND", "{id}");
        let batch_id = id.to_owned();
        let close = v1::CloseBatchRequest { batch_id: batch_id.clone() };
        let cancel = v1::CancelBatchRequest { batch_id: batch_id.clone(), ..Default::default() };
        let delete = v1::DeleteBatchRequest { batch_id: batch_id.clone() };
        let wait = v1::WaitBatchRequest { batch_id: batch_id.clone(), timeout: None };
        let watch = v1::WatchBatchRequest { batch_id, interval: None };
        for refused in [
            b.batches().close_batch(close).await.unwrap_err(),
            b.batches().cancel_batch(cancel).await.unwrap_err(),
            b.batches().delete_batch(delete).await.unwrap_err(),
            b.batches().wait_batch(wait).await.unwrap_err(),
            b.batches().watch_batch(watch).await.unwrap_err(),
        ] {
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "BATCH_NOT_FOUND"), "{id}");
        }
    }
    let listed = b.batches().list_batches(v1::ListBatchesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.batches, []);
    // Both can have a batch of the same name.
    let own = v1::CreateBatchRequest { batch_id: "nightly".into(), ..Default::default() };
    assert!(!b.batches().create_batch(own).await.unwrap().into_inner().duplicate);
    let foreign = v1::CreateBatchRequest { namespace: "team-a".into(), ..Default::default() };
    assert_eq!(b.batches().create_batch(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let joining = v1::SubmitTaskRequest { batch_id: generated, ..noop() };
    assert_eq!(reason(&submit(b, joining).await.unwrap_err()), "BATCH_NOT_FOUND");
}

#[tokio::test]
async fn a_schedule_of_another_tenant_does_not_exist() {
    let tenants = tenants().await;
    let (a, b) = (&tenants.a, &tenants.b);
    let spec = || {
        let interval = Rule::Interval(seconds(3_600).unwrap());
        Some(v1::ScheduleSpec { rule: Some(interval), task: Some(noop()), ..v1::ScheduleSpec::default() })
    };
    let create = async |caller: &Caller, namespace: &str| {
        let (schedule_id, namespace) = ("nightly".to_owned(), namespace.to_owned());
        let request = v1::CreateScheduleRequest { schedule_id, namespace, spec: spec() };
        caller.schedules().create_schedule(request).await.map(|response| response.into_inner().schedule.unwrap())
    };
    assert_eq!(create(a, "").await.unwrap().schedule_id, "team-a/nightly");
    assert_eq!(create(b, "team-a").await.unwrap_err().code(), Code::PermissionDenied);
    for id in ["team-a/nightly", "nightly"] {
        let schedule_id = id.to_owned();
        let get = v1::GetScheduleRequest { schedule_id: schedule_id.clone() };
        assert_eq!(
            a.schedules().get_schedule(get.clone()).await.unwrap().into_inner().schedule.unwrap().namespace,
            "team-a"
        );
        let update = v1::UpdateScheduleRequest { schedule_id: schedule_id.clone(), spec: spec(), etag: String::new() };
        let delete = v1::DeleteScheduleRequest { schedule_id: schedule_id.clone(), etag: String::new() };
        let pause = v1::PauseScheduleRequest { schedule_id: schedule_id.clone() };
        let resume = v1::ResumeScheduleRequest { schedule_id: schedule_id.clone() };
        let trigger = v1::TriggerScheduleRequest { schedule_id: schedule_id.clone(), allow_overlap: false };
        let preview = v1::PreviewScheduleRequest { schedule_id, ..v1::PreviewScheduleRequest::default() };
        for refused in [
            b.schedules().get_schedule(get).await.unwrap_err(),
            b.schedules().update_schedule(update).await.unwrap_err(),
            b.schedules().delete_schedule(delete).await.unwrap_err(),
            b.schedules().pause_schedule(pause).await.unwrap_err(),
            b.schedules().resume_schedule(resume).await.unwrap_err(),
            b.schedules().trigger_schedule(trigger).await.unwrap_err(),
            b.schedules().preview_schedule(preview).await.unwrap_err(),
        ] {
            assert_eq!(reason(&refused), "SCHEDULE_NOT_FOUND", "{id}: {refused:?}");
        }
    }
    let list = async |caller: &Caller| {
        let listed = caller.schedules().list_schedules(v1::ListSchedulesRequest::default()).await.unwrap();
        listed.into_inner().schedules.len()
    };
    assert_eq!((list(a).await, list(b).await, list(&tenants.all).await), (1, 0, 1));
    // Each tenant has its own.
    assert_eq!(create(b, "").await.unwrap().schedule_id, "team-b/nightly");
}

#[tokio::test]
async fn a_tenant_sees_its_own_keys_and_the_limits_that_all_share() {
    let tokens = Tokens::new();
    let a = tokens.create("a", "operator", "team-a", &[]);
    let b = tokens.create("b", "viewer", "team-b", &[]);
    let all = tokens.create("all", "viewer", "*", &[]);
    let server = tokens.serve("[[task_limit]]\nname = \"api\"\nmax_running = 2\n");
    let [a, b, all] = [a, b, all].map(|token| Caller::new(&server, &token));
    let limits = vec![
        v1::TaskLimit { key: "secret-customer".to_owned(), max_running: 1, ..Default::default() },
        v1::TaskLimit { name: "api".to_owned(), ..Default::default() },
    ];
    let held = submit(&a, v1::SubmitTaskRequest { limits, ..task("io", "3600") }).await.unwrap();
    let list = async |caller: &Caller, namespace: &str| {
        let request = v1::ListLimitsRequest { namespace: namespace.to_owned(), ..Default::default() };
        let limits = caller.tasks().list_limits(request).await?.into_inner().limits;
        Ok::<_, Status>(limits.into_iter().map(|limit| (limit.name + &limit.key, limit.taken)).collect::<Vec<_>>())
    };
    let (shared, own) = (("api".to_owned(), 1), ("secret-customer".to_owned(), 1));
    for caller in [&a, &all] {
        assert_eq!(list(caller, "").await.unwrap(), [shared.clone(), own.clone()], "{held} has both");
    }
    assert_eq!(list(&b, "").await.unwrap(), std::slice::from_ref(&shared));
    assert_eq!(list(&all, "team-b").await.unwrap(), [shared]);
    assert_eq!(list(&b, "team-a").await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_tenant_sees_the_decisions_about_its_own_tasks() {
    let tokens = Tokens::new();
    let a = tokens.create("a", "operator", "team-a", &[]);
    let b = tokens.create("b", "viewer", "team-b", &[]);
    let all = tokens.create("all", "viewer", "*", &[]);
    let server = tokens.serve("");
    let [a, b, all] = [a, b, all].map(|token| Caller::new(&server, &token));
    let id =
        submit(&a, v1::SubmitTaskRequest { fairness_key: "secret-customer".into(), ..task("io", "0") }).await.unwrap();
    let wait = v1::WaitTaskRequest { task_id: id.clone(), timeout: seconds(60) };
    a.tasks().wait_task(wait).await.unwrap();
    let list = async |caller: &Caller, namespace: &str, task_id: &str| {
        let request = v1::ListDecisionsRequest {
            pool: "default".to_owned(),
            namespace: namespace.to_owned(),
            task_id: task_id.to_owned(),
            ..Default::default()
        };
        let decisions = caller.pools().list_decisions(request).await?.into_inner().decisions;
        Ok::<_, Status>(decisions.into_iter().map(|decision| decision.task_id).collect::<Vec<_>>())
    };
    for caller in [&a, &all] {
        assert_eq!(list(caller, "", "").await.unwrap(), std::slice::from_ref(&id));
        assert_eq!(list(caller, "team-a", &id).await.unwrap(), std::slice::from_ref(&id));
    }
    assert!(list(&b, "", "").await.unwrap().is_empty() && list(&b, "", &id).await.unwrap().is_empty());
    assert_eq!(list(&b, "team-a", "").await.unwrap_err().code(), Code::PermissionDenied);
}
