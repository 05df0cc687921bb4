//! The plain routes: a form or JSON in, short JSON out, with the fields that docs/http.md and docs/moving.md name.

use lineshaft::proto::v1::{self, TaskState};
use serde_json::{Value, json};

use crate::health_endpoints::samples;
use crate::http1_client::{self, Connection, Response};
use crate::support::{Server, task};

fn get(server: &Server, path: &str) -> Response {
    Connection::open(server).send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
}

fn post(server: &Server, path: &str, content_type: &str, body: &str) -> Response {
    Connection::open(server).send(&http1_client::post(path, content_type, &[], body.as_bytes()))
}

fn form(server: &Server, path: &str, body: &str) -> Response {
    post(server, path, "application/x-www-form-urlencoded", body)
}

/// A task that runs until it is stopped.
async fn running(server: &Server) -> String {
    let accepted = post(server, "/api/submit", "application/json", r#"{"type":"io","param":3600}"#).json();
    let id = accepted["task_id"].as_str().unwrap().to_owned();
    server.wait_for_state(&id, TaskState::Running).await;
    id
}

#[tokio::test]
async fn a_task_is_submitted_with_a_form_and_shown_with_its_result() {
    let server = Server::start("");
    let accepted = form(&server, "/api/submit", "type=compute&param=10&priority=0&label=my+first&id=p").json();
    assert_eq!((&accepted["success"], &accepted["task_id"]), (&json!(true), &json!("p")));
    let shown = get(&server, "/api/task/p?wait=60").json();
    assert_eq!(
        (&shown["state"], &shown["priority"], &shown["exception"]),
        (&json!("completed"), &json!(0), &json!(null))
    );
    let meta = &shown["meta"];
    assert_eq!((&meta["type"], &meta["label"], &meta["param"]), (&json!("compute"), &json!("my first"), &json!("10")));
    assert!(shown["execution_time"].is_f64() && meta["submitted_by"].is_string(), "{shown}");
    let result: Value = serde_json::from_str(shown["result"].as_str().unwrap()).unwrap();
    assert_eq!(result["value"], 45);
    let ended = server.get("p").await;
    assert_eq!((ended.priority(), ended.display_name.as_str()), (v1::Priority::Critical, "my first"));
    form(&server, "/api/submit", "type=compute&param=none&id=wrong");
    let failed = get(&server, "/api/task/wrong?wait=60").json();
    assert_eq!((&failed["state"], &failed["failure_reason"]), (&json!("failed"), &json!("invalid_payload")));
    assert_eq!((&failed["result"], failed["exception"].is_string()), (&json!(null), true), "{failed}");
}

#[tokio::test]
async fn a_task_is_shown_with_its_output_and_error() {
    let server = Server::start(
        "[[handler]]\nname = \"report\"\nrunner = \"process\"\n\
         argv = [\"/bin/sh\", \"-c\", \"seq 9999; echo late >&2\"]",
    );
    form(&server, "/api/submit", "type=report&id=r");
    let shown = get(&server, "/api/task/r?wait=60").json();
    let output = shown["output"].as_str().unwrap();
    assert!(output.starts_with("1\n2\n") && output.ends_with("\n9999\n"), "{output}");
    assert!(output.lines().any(|line| line.ends_with(" bytes left out]")) && output.len() < 9_000, "{output}");
    assert_eq!(shown["error"], "late\n");
    form(&server, "/api/submit", "type=compute&param=10&id=silent");
    let silent = get(&server, "/api/task/silent?wait=60").json();
    assert_eq!((&silent["output"], &silent["error"]), (&json!(null), &json!(null)));
    let listed = get(&server, "/api/tasks").json();
    assert_eq!(listed["tasks"][1].get("output"), None, "{listed}");
}

#[tokio::test]
async fn running_tasks_are_listed_and_cancelled() {
    let server = Server::start("");
    let running = running(&server).await;
    assert_eq!(get(&server, "/api/tasks").json()["tasks"].as_array().unwrap().len(), 1);
    let listed = get(&server, "/api/tasks/running").json();
    let expected = json!({"task_id": &running, "title": "io", "status": "running", "last_run": listed[0]["last_run"],
                          "run_count": 1, "is_done": false, "is_cancelled": false, "progress": 0.0,
                          "worker": listed[0]["worker"]});
    assert_eq!(listed, json!([expected]));
    let cancelled = form(&server, &format!("/api/tasks/{running}/cancel"), "reason=enough");
    assert_eq!((cancelled.status, cancelled.json()["message"].is_string()), (200, true), "{:?}", cancelled.json());
    assert_eq!(server.wait_finished(&running).await.state(), TaskState::Cancelled);
    assert_eq!(form(&server, "/api/clear-completed", "").json()["cleared"], 1);
    assert_eq!(get(&server, &format!("/api/task/{running}")).status, 404);
}

#[tokio::test]
async fn statistics_have_the_workers_counts_and_the_process() {
    let server = Server::start("");
    form(&server, "/api/submit", "type=compute&param=10&id=good");
    form(&server, "/api/submit", "type=compute&param=none&id=bad");
    for id in ["good", "bad"] {
        server.wait_finished(id).await;
    }
    let running = running(&server).await;
    let stats = get(&server, "/api/tasks/stats").json();
    let counts = ["total_tasks", "pending_tasks", "running_tasks", "completed_tasks", "failed_tasks"];
    assert_eq!(counts.map(|count| stats[count].as_i64()), [3, 0, 1, 1, 1].map(Some), "{stats}");
    assert_eq!(
        (&stats["max_retries"], &stats["retry_delay"], &stats["task_timeout"]),
        (&json!(2), &json!(10.0), &json!(300.0))
    );
    let all = get(&server, "/api/stats").json();
    assert_eq!((&all["pools"][0]["name"], &all["pools"][0]["metrics"]["busy"]), (&json!("default"), &json!(1)));
    let workers = all["workers"].as_array().unwrap();
    assert_eq!(
        (&all["pool_config"]["total_workers"], &stats["max_workers"]),
        (&json!(workers.len()), &json!(workers.len()))
    );
    assert!(workers.iter().enumerate().all(|(n, worker)| worker["id"] == n && worker["is_alive"] == true), "{all}");
    assert!(workers.iter().any(|worker| worker["current_task"] == running), "{all}");
    assert_eq!((&all["metrics"]["total_submitted"], &all["metrics"]["success_rate"]), (&json!(3), &json!(50.0)));
    assert_eq!((&all["queue"]["total_pending"], &all["tasks"]["running"]), (&json!(0), &json!(1)));
    let process = &all["system_health"];
    for number in ["cpu_percent", "memory_mb", "memory_percent", "num_threads"] {
        assert!(process[number].is_number(), "{number}: {process}");
    }
    assert_eq!(process["healthy"], true);
    let cancelled = "lineshaft.v1.PoolService/StreamPoolMetrics\",rpc_status_code=\"CANCELLED\"";
    assert!(!samples(&server.address).keys().any(|name| name.contains(cancelled)), "no stream was cancelled");
}

#[test]
fn errors_name_the_parameter_of_the_route() {
    let server = Server::start("");
    for (path, body, status) in [
        ("/api/submit", "type=nosuch", 404),
        ("/api/submit", "param=1", 400),
        ("/api/submit", "type=compute&priority=4", 400),
        ("/api/submit?strict=true", "type=compute&colour=red", 400),
        ("/api/tasks/none/cancel", "", 404),
        ("/api/nothing", "", 404),
        ("/api/tasks", "", 405),
    ] {
        assert_eq!(form(&server, path, body).status, status, "{path} {body}");
    }
    for (invalid, parameter) in [
        (form(&server, "/api/submit", "type=compute&id=a%20b"), "id"),
        (form(&server, "/api/submit", "type=a%20b"), "type"),
        (form(&server, &format!("/api/submit?strict={}", "maybe"), "type=compute"), "strict"),
        (form(&server, "/api/tasks/a%20b/cancel", ""), "id"),
        (get(&server, "/api/task/a%20b"), "id"),
        (get(&server, "/api/tasks?type=a%20b"), "type"),
        (get(&server, "/api/tasks?page=none"), "page"),
    ] {
        let error = invalid.json();
        let named = &error["details"][1]["debug"]["fieldViolations"][0]["field"];
        assert_eq!((invalid.status, named), (400, &json!(parameter)), "{error}");
        assert!(error["message"].as_str().unwrap().starts_with(&format!("`{parameter}` ")), "{error}");
    }
}

#[tokio::test]
async fn a_wait_answers_with_a_task_that_is_deleted_at_its_end() {
    let server = Server::start("[retention]\ncount = 0\n");
    server.submit(v1::SubmitTaskRequest { task_id: "short".to_owned(), ..task("io", "1") }).await;
    let path = "/api/task/short?wait=60";
    let ended = get(&server, path);
    assert_eq!((ended.status, &ended.json()["state"]), (200, &json!("completed")), "{:?}", ended.json());
    assert_eq!(get(&server, path).status, 404, "it is deleted");
}

#[test]
fn a_plain_route_shuts_the_server_down() {
    let mut server = Server::start("");
    let response = post(&server, "/api/shutdown", "application/json", r#"{"limit_seconds":5}"#);
    assert_eq!((response.status, &response.json()["draining"]), (202, &json!(true)));
    assert!(server.wait_exit().success(), "{}", server.log());
}
