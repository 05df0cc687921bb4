//! Limits of tasks: how many run at once and how many start in a time, also after a crash and while the limits change.

use std::time::Duration;

use lineshaft::proto::v1::{self, TaskState, limit_hold::Reason};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{BINARY, Server, reason, seconds, task};

const API: &str = "[[pool]]\nname = \"default\"\nsize = 8\n[[task_limit]]\nname = \"api\"\nmax_running = 2\n";

fn own(key: &str, max_running: i32) -> v1::TaskLimit {
    v1::TaskLimit { key: key.to_owned(), max_running, ..Default::default() }
}

fn named(name: &str) -> v1::TaskLimit {
    v1::TaskLimit { name: name.to_owned(), ..Default::default() }
}

fn limited(request: v1::SubmitTaskRequest, limits: &[v1::TaskLimit]) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { limits: limits.to_vec(), ..request }
}

fn micros(at: Option<&prost_types::Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000)
}

#[tokio::test]
async fn a_task_says_which_limit_it_waits_for_and_starts_when_a_place_is_free() {
    let server = Server::start("");
    let first = server.submit(limited(task("io", "60"), &[own("k", 1)])).await;
    server.wait_started(&first).await;
    let second = server.submit(limited(task("io", "0"), &[own("k", 1)])).await;
    let other = server.submit(limited(task("io", "0"), &[own("other", 1)])).await;
    assert_eq!(server.wait_finished(&other).await.state(), TaskState::Completed, "others are not held back");
    let waiting = server.get(&second).await;
    assert_eq!((waiting.state(), waiting.limits), (TaskState::Waiting, vec![own("k", 1)]));
    let hold = waiting.limit_hold.unwrap();
    assert_eq!(hold.reason, Some(Reason::Places(v1::PlacesTaken { taken: 1, max: 1 })));
    let cancel = v1::CancelTaskRequest { task_id: first, ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    let ended = server.wait_finished(&second).await;
    assert_eq!((ended.state(), ended.limit_hold), (TaskState::Completed, None));
}

#[tokio::test]
async fn a_limit_of_the_configuration_changes_while_tasks_wait() {
    let config = |max: u32| format!("[[task_limit]]\nname = \"api\"\nmax_running = {max}\n");
    let server = Server::start(&config(1));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.submit(limited(task("io", "60"), &[named("api")])).await);
    }
    server.wait_started(&ids[0]).await;
    assert_eq!(server.get(&ids[1]).await.state(), TaskState::Waiting);
    std::fs::write(server.path("config.toml"), config(2)).unwrap();
    server.wait_started(&ids[1]).await;
    assert_eq!(server.get(&ids[2]).await.state(), TaskState::Waiting);
    let unknown = server.tasks().submit_task(limited(task("io", "0"), &[named("gone")])).await.unwrap_err();
    assert_eq!(reason(&unknown), "INVALID_FIELD");
    assert!(unknown.message().contains("limits[0].name"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_tasks_of_a_key_run_than_its_limit_allows_although_the_server_is_killed() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start(API);
    let mut accepted = Vec::new();
    for _ in 0..4 {
        let io = |_| limited(task("io", &format!("0.0{}", random.random_range(1..9))), &[named("api")]);
        let batch = v1::BatchSubmitTasksRequest { tasks: (0..40).map(io).collect(), ..Default::default() };
        accepted.extend(server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids);
        tokio::time::sleep(Duration::from_millis(random.random_range(20..300))).await;
        server.kill9();
        server.start_again();
    }
    // An end before a start at the same time.
    let mut changes = Vec::new();
    for id in &accepted {
        let ended = server.wait_finished(id).await;
        assert_eq!(ended.state(), TaskState::Completed, "seed {seed}: {ended:?}");
        changes.push((micros(ended.started_at.as_ref()), 1));
        changes.push((micros(ended.finished_at.as_ref()), -1));
    }
    changes.sort_unstable();
    let running = changes.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    let most = running.max();
    assert_eq!(most, Some(2), "seed {seed}: {most:?} ran at once");
}

#[tokio::test]
async fn starts_keep_to_their_rate_over_a_crash() {
    let mut server = Server::start("");
    let rate = v1::StartRate { starts: 10, interval: None, burst: 2 };
    let limit = v1::TaskLimit { key: "k".to_owned(), rate: Some(rate), ..Default::default() };
    let tasks = (0..12).map(|_| limited(task("io", "0"), std::slice::from_ref(&limit))).collect();
    let batch = v1::BatchSubmitTasksRequest { tasks, ..Default::default() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    server.wait_finished(&ids[3]).await;
    server.kill9();
    server.start_again();
    let mut starts = Vec::new();
    for id in &ids {
        starts.push(micros(server.wait_finished(id).await.started_at.as_ref()));
    }
    starts.sort_unstable();
    for (index, first) in starts.iter().enumerate() {
        for (count, last) in (1_i64..).zip(&starts[index..]) {
            assert!(count <= 2 + (last - first) / 100_000, "{count} starts in {} µs", last - first);
        }
    }
}

#[tokio::test]
async fn numbers_out_of_range_are_named_and_too_many_keys_are_refused() {
    let server = Server::start("");
    let rate =
        |starts, nanos| v1::StartRate { starts, interval: Some(prost_types::Duration { seconds: 0, nanos }), burst: 0 };
    for (limit, named) in [
        (own("k", -1), "`limits[0].max_running` is -1, must be from 1 to 1000000"),
        (own("k", 0), "`limits[0].max_running` is 0 and there is no rate"),
        (v1::TaskLimit { rate: Some(rate(-5, 1_000_000)), ..own("k", 0) }, "`limits[0].rate.starts` is -5"),
        (v1::TaskLimit { rate: Some(rate(5, 1)), ..own("k", 0) }, "`limits[0].rate.interval` is 1ns, must be from 1ms"),
    ] {
        let refused = server.tasks().submit_task(limited(task("io", "0"), &[limit])).await.unwrap_err();
        assert!(refused.message().contains(named), "{refused}");
    }
    // Eight keys for each task.
    let mut refused = None;
    for batch in 0..2 {
        let of = |number: usize| {
            let key = |k: usize| own(&format!("{batch}-{number}-{k}"), 1);
            v1::SubmitTaskRequest {
                delay: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
                ..limited(task("io", "0"), &(0..8).map(key).collect::<Vec<_>>())
            }
        };
        let tasks = (0..9_000).map(of).collect();
        let batch = v1::BatchSubmitTasksRequest { tasks, ..Default::default() };
        refused = server.tasks().batch_submit_tasks(batch).await.err();
    }
    let refused = refused.expect("144,000 keys are too many");
    assert_eq!(reason(&refused), "TOO_MANY_LIMIT_KEYS", "{refused}");
}

#[tokio::test]
async fn limits_are_listed_with_what_is_taken_of_them() {
    let server = Server::start(API);
    let rate = v1::StartRate { starts: 1, interval: seconds(3_600), burst: 2 };
    let mail = v1::TaskLimit { key: "mail".to_owned(), rate: Some(rate), ..Default::default() };
    let running = server.submit(limited(task("io", "60"), &[own("k", 1), mail.clone()])).await;
    server.wait_started(&running).await;
    for _ in 0..3 {
        server.submit(limited(task("io", "60"), &[own("k", 1)])).await;
    }
    let list = async |request: v1::ListLimitsRequest| server.tasks().list_limits(request).await.unwrap().into_inner();
    let mut limits = list(v1::ListLimitsRequest::default()).await.limits;
    limits[1..].sort_by(|a, b| a.key.cmp(&b.key));
    let default = || v1::Limit { namespace: "default".to_owned(), ..Default::default() };
    let expected = [
        v1::Limit { name: "api".to_owned(), max_running: 2, ..Default::default() },
        v1::Limit { key: "k".to_owned(), max_running: 1, unfinished: 4, taken: 1, waiting: 3, ..default() },
        v1::Limit { key: "mail".to_owned(), rate: Some(rate), unfinished: 1, taken: 1, tokens: 1, ..default() },
    ];
    assert_eq!(limits, expected);

    let mut pages = Vec::new();
    let mut request = v1::ListLimitsRequest { page_size: 1, ..Default::default() };
    loop {
        let page = list(request.clone()).await;
        pages.extend(page.limits);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    pages[1..].sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(pages, expected, "one on each page");
    let waiting = list(v1::ListLimitsRequest { only_waiting: true, ..Default::default() }).await;
    assert_eq!(waiting.limits, expected[1..2]);
    let other = v1::ListLimitsRequest { only_waiting: true, page_token: request.page_token, ..Default::default() };
    assert_eq!(reason(&server.tasks().list_limits(other).await.unwrap_err()), "INVALID_FIELD");

    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let run = std::process::Command::new(BINARY)
        .args(["limit", "list", "--no-headers", "--columns", "limit,taken,waiting,rate,tokens"])
        .env("LINESHAFT_SERVER", &server.address)
        .output()
        .unwrap();
    let rows = String::from_utf8(run.stdout).unwrap();
    let rows: Vec<Vec<_>> = rows.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["k", "1/1", "3"], vec!["api", "0/2", "0"], vec!["mail", "1", "0", "1/1h", "1/2"]]);
}
