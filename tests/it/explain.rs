//! ExplainTask: what keeps a task from starting.

use std::process::Command;

use lineshaft::proto::v1::{self, EstimateBasis, TaskState, blocker::Kind, watch_tasks_response};
use tonic::Code;

use crate::health_endpoints::wait_for_sample;
use crate::support::{BINARY, Server, noop, reason, seconds, task};

const CONFIG: &str = r#"
[[pool]]
name = "default"
size = 1
[[pool]]
name = "far"
kind = "remote"
[[handler]]
name = "far"
runner = "remote"
"#;

async fn explain(server: &Server, id: &str) -> v1::ExplainTaskResponse {
    let request = v1::ExplainTaskRequest { task_id: id.to_owned() };
    server.tasks().explain_task(request).await.unwrap().into_inner()
}

fn kinds(response: &v1::ExplainTaskResponse) -> Vec<Kind> {
    response.blockers.iter().map(|blocker| blocker.kind.clone().unwrap()).collect()
}

#[tokio::test]
async fn a_task_that_has_not_started_shows_everything_that_keeps_it_from_starting() {
    let server = Server::start(CONFIG);
    let gate = server.submit(task("io", "3600")).await;
    server.wait_started(&gate).await;
    let next = server.submit(v1::SubmitTaskRequest { task_id: "next".to_owned(), ..noop() }).await;
    let dependencies = v1::Dependencies { task_ids: vec![next.clone()], ..Default::default() };
    let child = v1::SubmitTaskRequest {
        task_id: "child".to_owned(),
        delay: seconds(3_600),
        dependencies: Some(dependencies),
        ..noop()
    };
    let mut events = server.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner();
    let child = server.submit(child).await;
    let event = loop {
        match events.message().await.unwrap().unwrap().kind {
            Some(watch_tasks_response::Kind::Event(event)) if event.task_id == child => break event,
            _ => {}
        }
    };
    assert_eq!(event.holds().collect::<Vec<_>>(), [v1::Hold::Delay, v1::Hold::Parents]);
    let far = server.submit(task("far", "null")).await;
    for (pool, blocker) in
        [("default", "delay"), ("default", "parents"), ("default", "pool_slots"), ("far", "no_worker")]
    {
        let sample = format!(r#"lineshaft_task_blocked{{blocker="{blocker}",pool="{pool}"}}"#);
        wait_for_sample(&server.address, &sample, "1");
    }

    let explained = explain(&server, &next).await;
    assert_eq!(
        (explained.state(), kinds(&explained)),
        (TaskState::Queued, vec![Kind::PoolSlots(v1::TakenSlots { slots: 1 })])
    );
    let position = explained.position.unwrap();
    assert_eq!((position.more_urgent, position.before, position.at_least, position.dispatched), (0, 0, false, true));
    assert_eq!(explained.estimated_start, None, "too few tasks have run");

    let explained = explain(&server, &child).await;
    assert_eq!(explained.state(), TaskState::Waiting);
    let [Kind::DelayedUntil(at), Kind::Parents(parents)] = &kinds(&explained)[..] else { panic!("{explained:?}") };
    assert_eq!(server.get(&child).await.eligible_at.as_ref(), Some(at));
    assert_eq!((parents.count, &parents.task_ids[..]), (1, &[next.clone()][..]));

    assert_eq!(kinds(&explain(&server, &far).await), [Kind::HandlerWithoutWorker("far".to_owned())]);
    server.set_paused("default", true).await;
    assert!(kinds(&explain(&server, &next).await).contains(&Kind::PausedPool("default".to_owned())));

    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(["task", "explain", "next", "child"]).env("LINESHAFT_SERVER", &server.address);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in
        ["next is QUEUED", "pool default is paused", "0 tasks before it", "child is WAITING", "1 parent: next"]
    {
        assert!(text.contains(expected), "{text}");
    }

    server.set_paused("default", false).await;
    let cancel = v1::CancelTaskRequest { task_id: gate, ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    server.wait_finished(&next).await;
    let explained = explain(&server, &next).await;
    assert_eq!((explained.state(), explained.blockers.len(), explained.position), (TaskState::Completed, 0, None));
    assert_eq!(explained.estimate_basis(), EstimateBasis::Unspecified);
    let delayed = v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() };
    let delayed = explain(&server, &server.submit(delayed).await).await;
    assert_eq!(delayed.estimate_basis(), EstimateBasis::Delay);
    assert!(delayed.estimated_start.is_some());

    let unknown = v1::ExplainTaskRequest { task_id: "unknown".to_owned() };
    let refused = server.tasks().explain_task(unknown).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "TASK_NOT_FOUND"));
}
