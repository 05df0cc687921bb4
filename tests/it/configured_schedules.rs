//! Schedules of the configuration file: created at the start, changed by a reload, and kept from calls.

use lineshaft::proto::v1::{self, Schedule, ScheduleState};
use tonic::Code;

use crate::support::{Server, check, eventually, reason};

const BASE: &str = "[[handler]]\nname = \"report\"\nrunner = \"process\"\nargv = [\"/bin/cat\"]\n";

fn nightly(settings: &str) -> String {
    format!("[[schedule]]\nid = \"nightly\"\nhandler = \"report\"\n{settings}\n")
}

fn write(server: &Server, schedules: &str) {
    let draft = server.path("config.draft");
    std::fs::write(&draft, format!("{BASE}{schedules}")).unwrap();
    std::fs::rename(draft, server.path("config.toml")).unwrap();
}

async fn reload(server: &Server, schedules: &str) {
    let count = || server.log().matches("reloaded the configuration").count();
    let before = count();
    write(server, schedules);
    eventually(async || check(count() > before, || server.log())).await;
}

async fn get(server: &Server, id: &str) -> Result<Schedule, tonic::Status> {
    let request = v1::GetScheduleRequest { schedule_id: id.to_owned() };
    Ok(server.schedules().get_schedule(request).await?.into_inner().schedule.unwrap())
}

#[tokio::test]
async fn schedules_of_the_file_follow_it_and_keep_their_history() {
    let daily = nightly("cron = \"30 2 * * *\"\ntime_zone = \"Europe/Berlin\"\njson = { kind = \"daily\" }");
    let mut server = Server::start(&format!("{BASE}{daily}"));
    let created = get(&server, "nightly").await.unwrap();
    assert!(created.configured);
    let task = created.spec.unwrap().task.unwrap();
    assert_eq!(crate::support::bytes(task.payload.as_ref()), r#"{"kind":"daily"}"#);
    let trigger = v1::TriggerScheduleRequest { schedule_id: "nightly".to_owned(), allow_overlap: false };
    let run = server.schedules().trigger_schedule(trigger).await.unwrap().into_inner();
    let ended = server.wait_finished(&run.task_id).await;
    assert_eq!(crate::support::bytes(ended.result.as_ref()), r#"{"kind":"daily"}"#);

    let hourly = nightly("every = \"1h\"")
        + "[[schedule]]\nid = \"second\"\nnamespace = \"team\"\nevery = 60\nhandler = \"report\"\n";
    reload(&server, &hourly).await;
    let changed = get(&server, "nightly").await.unwrap();
    assert_eq!((changed.run_count, changed.created_at), (1, created.created_at), "it is the same schedule");
    assert_ne!(changed.etag, created.etag);
    assert!(get(&server, "team/second").await.unwrap().configured);

    server.kill9();
    server.start_again();
    assert_eq!(get(&server, "nightly").await.unwrap().etag, changed.etag, "a restart changes nothing");

    reload(&server, "").await;
    for gone in ["nightly", "team/second"] {
        assert_eq!(get(&server, gone).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(server.get(&run.task_id).await.task_id, run.task_id, "its tasks stay");
}

#[tokio::test]
async fn a_schedule_of_the_file_is_paused_but_not_changed_by_calls() {
    let server = Server::start(&format!("{BASE}{}", nightly("every = \"1h\"")));
    let configured = get(&server, "nightly").await.unwrap();
    let schedule_id = || "nightly".to_owned();
    let mut schedules = server.schedules();
    let update = v1::UpdateScheduleRequest { schedule_id: schedule_id(), spec: configured.spec, etag: String::new() };
    let delete = v1::DeleteScheduleRequest { schedule_id: schedule_id(), etag: String::new() };
    let refused = [
        schedules.update_schedule(update).await.map(drop).unwrap_err(),
        schedules.delete_schedule(delete).await.map(drop).unwrap_err(),
    ];
    for refusal in &refused {
        assert_eq!((refusal.code(), reason(refusal).as_str()), (Code::FailedPrecondition, "SCHEDULE_CONFIGURED"));
    }
    schedules.pause_schedule(v1::PauseScheduleRequest { schedule_id: schedule_id() }).await.unwrap();
    reload(&server, &nightly("every = \"2h\"")).await;
    assert_eq!(get(&server, "nightly").await.unwrap().state(), ScheduleState::Paused, "a reload does not resume it");
}

#[tokio::test]
async fn a_schedule_of_a_call_becomes_one_of_the_file() {
    let server = Server::start(BASE);
    let task = v1::SubmitTaskRequest { handler: "report".to_owned(), ..Default::default() };
    let rule = v1::schedule_spec::Rule::Interval(prost_types::Duration { seconds: 7_200, nanos: 0 });
    let spec = v1::ScheduleSpec { rule: Some(rule), task: Some(task), ..Default::default() };
    let create =
        v1::CreateScheduleRequest { schedule_id: "nightly".to_owned(), spec: Some(spec), ..Default::default() };
    server.schedules().create_schedule(create).await.unwrap();
    assert!(!get(&server, "nightly").await.unwrap().configured);
    reload(&server, &nightly("every = \"2h\"")).await;
    assert!(get(&server, "nightly").await.unwrap().configured);
}

#[tokio::test]
async fn a_bad_schedule_is_refused_with_its_line() {
    let server = Server::start(BASE);
    for (bad, expected) in [
        (nightly("cron = \"61 * * * *\""), "config.toml:8: schedule[0].cron"),
        (nightly("every = \"1ns\""), "config.toml:8: schedule[0].every"),
        (nightly("cron = \"0 2 30 2 *\""), "schedule[0].cron"),
        (nightly("every = \"1h\"\ntime_zone = \"Mars/Base\"\ncron = \"* * * * *\""), "schedule[0]: must have either"),
        (nightly("cron = \"* * * * *\"\ntime_zone = \"Mars/Base\""), "config.toml:9: schedule[0].time_zone"),
        (nightly("every = \"1h\"\nstart = \"tomorrow\""), "config.toml:9: schedule[0].start"),
        (nightly("every = \"1h\"\npool = \"remote\""), "config.toml:9: schedule[0].pool"),
        (nightly("every = \"1h\"\npriority = \"urgent\""), "schedule[0].priority"),
        (nightly("every = \"1h\"") + &nightly("every = \"2h\""), "is already the ID of another schedule"),
        (nightly("every = \"1h\"").replace("report", "nosuch"), "config.toml:7: schedule[0].handler"),
    ] {
        write(&server, &bad);
        eventually(async || check(server.log().contains(expected), || format!("{expected}: {}", server.log()))).await;
    }
    assert_eq!(get(&server, "nightly").await.unwrap_err().code(), Code::NotFound);
    reload(&server, &nightly("every = \"1h\"")).await;
    assert!(get(&server, "nightly").await.unwrap().configured);
}
