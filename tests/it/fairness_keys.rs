//! Fairness keys: the keys of a namespace share a pool by their weights.

use lineshaft::proto::v1::{self, TaskState};

use crate::support::{BINARY, Server, check, eventually, fields, noop, reason};

fn of(namespace: &str, key: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { namespace: namespace.into(), fairness_key: key.into(), ..noop() }
}

async fn submit(server: &Server, count: usize, request: &v1::SubmitTaskRequest) -> Vec<String> {
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![request.clone(); count], batch_id: String::new() };
    server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids
}

/// The tasks in the order of their starts, once all have ended.
async fn order(server: &Server, ids: impl IntoIterator<Item = &String>) -> Vec<v1::Task> {
    let mut tasks = Vec::new();
    for id in ids {
        tasks.push(server.wait_finished(id).await);
    }
    assert!(tasks.iter().all(|task| task.state() == TaskState::Completed));
    tasks.sort_by_key(|task| task.started_at.map(|at| (at.seconds, at.nanos)));
    tasks
}

fn config(weight: f64) -> String {
    format!(
        "[[pool]]\nname = \"default\"\nsize = 1\npaused = true\n\
         [[pool.weights]]\nnamespace = \"a\"\nfairness_key = \"gold:*\"\nweight = {weight}\n"
    )
}

#[tokio::test]
async fn keys_share_the_part_of_their_namespace_by_weights_that_change_while_tasks_wait() {
    let server = Server::start(&config(1.0));
    let gold = submit(&server, 40, &of("a", "gold:1")).await;
    let free = submit(&server, 40, &of("a", "free")).await;
    let other = submit(&server, 40, &of("b", "")).await;
    std::fs::write(server.path("config.toml"), config(3.0)).unwrap();
    let get = async || {
        let response = server.pools().get_pool(v1::GetPoolRequest { name: "default".into() }).await.unwrap();
        response.into_inner().pool.unwrap().weights
    };
    eventually(async || check(get().await[0].weight > 2.0, || server.log())).await;
    let weight = v1::PoolWeight { namespace: "a".into(), fairness_key: "gold:*".into(), weight: 3.0 };
    assert_eq!(get().await, [weight]);
    let explained = server.tasks().explain_task(v1::ExplainTaskRequest { task_id: free[1].clone() }).await.unwrap();
    let position = explained.into_inner().position.unwrap();
    assert_eq!((position.before, position.other_namespaces, position.other_fairness_keys), (1, 1, 1));
    server.set_paused("default", false).await;
    let tasks = order(&server, gold.iter().chain(&free).chain(&other)).await;
    let first = &tasks[..40];
    let list = v1::ListDecisionsRequest { pool: "default".into(), page_size: 1_000, ..Default::default() };
    let decisions = server.pools().list_decisions(list).await.unwrap().into_inner().decisions;
    let dispatched: Vec<_> = decisions.iter().rev().map(|decision| &decision.task_id).collect();
    assert_eq!(dispatched, tasks.iter().map(|task| &task.task_id).collect::<Vec<_>>(), "one worker keeps the order");
    let oldest = decisions.last().unwrap();
    assert_eq!(oldest.reason(), v1::DecisionReason::Turn);
    assert_eq!((oldest.other_namespaces, oldest.other_fairness_keys, oldest.attempt), (1, 1, 1));
    assert_eq!((&oldest.started_at, &oldest.worker), (&tasks[0].started_at, &tasks[0].worker));
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let run = std::process::Command::new(BINARY)
        .args([
            "pool",
            "decisions",
            "--no-headers",
            "--columns",
            "task,key,why",
            "--fairness-key",
            "free",
            "-n",
            "1000",
        ])
        .env("LINESHAFT_SERVER", &server.address)
        .output()
        .unwrap();
    let rows = String::from_utf8(run.stdout).unwrap();
    let first_row = rows.lines().last().unwrap();
    assert!(
        first_row.contains(&free[0]) && first_row.contains("among 1 other namespace and 1 other fairness key"),
        "{rows}"
    );
    assert_eq!(rows.lines().count(), 40);
    let count = |key: &str| first.iter().filter(|task| task.namespace == "a" && task.fairness_key == key).count();
    assert_eq!((count("gold:1"), count("free")), (15, 5), "20 are of the other namespace");
}

#[tokio::test]
async fn a_key_that_is_no_name_is_refused() {
    let server = Server::start("");
    for key in ["a b", "gold*", &"x".repeat(65)] {
        let refused = server.tasks().submit_task(of("default", key)).await.unwrap_err();
        assert_eq!((reason(&refused), fields(&refused)), ("INVALID_FIELD".into(), vec!["fairness_key".into()]));
    }
    let config = "[[pool]]\nname = \"default\"\n[[pool.weights]]\nfairness_key = \"a\"\nweight = ";
    for weight in ["0", "-1", "nan", "inf", "1000"] {
        let error = Server::fail_to_start(&format!("{config}{weight}\n"), &[]);
        assert!(error.contains("pool[0].weights[0].weight") && error.contains("must be 0.01 to 100"), "{error}");
    }
    let error = Server::fail_to_start(&format!("{config}1\n[[pool.weights]]\nfairness_key = \"a\"\nweight = 2\n"), &[]);
    assert!(error.contains("repeats the namespace and the fairness key"), "{error}");
}
