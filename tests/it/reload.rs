//! Handlers and pools are reloaded from the configuration file while the server runs.

use std::os::unix::fs::symlink;
use std::path::Path;

use lineshaft::proto::v1::{self, TaskState};
use rustix::process::Signal;

use crate::http1_client::Connection;
use crate::support::{Server, bytes, check, eventually, reason, task};

/// A handler that runs a script of the shell.
fn script(name: &str, script: &str) -> String {
    format!(
        "[[handler]]\nname = \"{name}\"\nrunner = \"process\"\nargv = [\"/bin/sh\", \"-c\", '''{script}''']\n\
         retry = {{ attempts = 1 }}\n"
    )
}

fn write(server: &Server, config: &str) {
    // As an editor and most tools do it: the file is never half there.
    let draft = server.path("config.draft");
    std::fs::write(&draft, config).unwrap();
    std::fs::rename(draft, server.path("config.toml")).unwrap();
}

/// Waits until so many reloads have succeeded.
async fn reloaded(server: &Server, count: usize) {
    let reloads = || server.log().matches("reloaded the configuration").count();
    eventually(async || check(reloads() >= count, || format!("{} reloads: {}", reloads(), server.log()))).await;
}

async fn reload(server: &Server, config: &str) {
    let before = server.log().matches("reloaded the configuration").count();
    write(server, config);
    reloaded(server, before + 1).await;
}

async fn result(server: &Server, handler: &str) -> String {
    let ended = server.wait_finished(&server.submit(task(handler, "")).await).await;
    assert_eq!(ended.state(), TaskState::Completed, "{ended:?}");
    bytes(ended.result.as_ref())
}

fn metrics(server: &Server) -> String {
    let response = Connection::open(server).send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    String::from_utf8(response.body).unwrap()
}

fn is_refused(server: &Server) -> bool {
    metrics(server).contains("\nlineshaft_config_refused 1")
}

#[tokio::test]
async fn a_handler_and_a_pool_that_are_added_to_the_file_are_used_without_a_restart() {
    let mut server = Server::start("");
    let unknown = server.tasks().submit_task(task("hello", "")).await.unwrap_err();
    assert_eq!(reason(&unknown), "UNKNOWN_HANDLER");
    let added = "[[pool]]\nname = \"default\"\nsize = 2\n[[pool]]\nname = \"more\"\n";
    let handler = script("hello", "echo hello") + "pool = \"more\"\n";
    reload(&server, &format!("{added}{handler}")).await;
    assert_eq!(result(&server, "hello").await, "hello\n");
    let pools = server.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools;
    let sizes: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.size)).collect();
    assert_eq!((sizes.len(), sizes[0]), (2, ("default", 2)), "the pool `remote` is gone");
    let metrics = metrics(&server);
    assert!(metrics.contains(r#"lineshaft_task_attempts_total{handler="hello",pool="more""#), "{metrics}");
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[tokio::test]
async fn a_reload_with_one_bad_line_is_refused_with_its_number_and_changes_nothing() {
    let script = |text: &str| format!("builtins = false\n{}", script("hello", text));
    let server = Server::start(&script("echo one"));
    assert!(!is_refused(&server));
    for (bad, expected) in [
        ("timeout = \"never\"\n", "config.toml:7: handler[0].timeout = \\\"never\\\""),
        ("\ntimeout = \"25h\"\n", "config.toml:8: handler[0].timeout"),
        ("[[pool]]\nname = \"default\"\nkind = \"async\"\n", "config.toml:9: pool[0].kind: cannot change"),
        ("user = \"nobody-of-this-name\"\n", "config.toml:2: handler[0]: handler `hello`"),
    ] {
        write(&server, &format!("{}{bad}", script("echo two")));
        server.wait_logged(expected).await;
        eventually(async || check(is_refused(&server), || "the metric is not set".to_owned())).await;
        assert_eq!(result(&server, "hello").await, "one\n", "{bad}");
    }
    assert!(!server.log().contains("reloaded the configuration"));
    reload(&server, &script("echo two")).await;
    assert_eq!(result(&server, "hello").await, "two\n");
    eventually(async || check(!is_refused(&server), || "the metric is set".to_owned())).await;
}

#[tokio::test]
async fn an_attempt_keeps_the_handler_that_it_began_with_and_a_waiting_task_gets_the_new_one() {
    let pool = "[[pool]]\nname = \"default\"\nsize = 1\n";
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let version = |number: u32| format!("{pool}{}", script("hello", &format!("cat {}; echo {number}", fifo.display())));
    let server = Server::start(&version(1));
    let running = server.submit(task("hello", "")).await;
    let waiting = server.submit(task("hello", "")).await;
    server.wait_started(&running).await;
    reload(&server, &version(2)).await;
    for (id, expected) in [(running, "go\n1\n"), (waiting, "go\n2\n")] {
        std::fs::write(&fifo, "go\n").unwrap();
        assert_eq!(bytes(server.wait_finished(&id).await.result.as_ref()), expected);
    }
}

#[tokio::test]
async fn a_waiting_task_of_a_removed_handler_fails_as_after_a_restart() {
    let pool = "[[pool]]\nname = \"default\"\npaused = true\n";
    let server = Server::start(&format!("{pool}{}", script("hello", "echo one")));
    let waiting = server.submit(task("hello", "")).await;
    reload(&server, "[[pool]]\nname = \"default\"\n").await;
    let ended = server.wait_finished(&waiting).await;
    assert_eq!(ended.failure.unwrap().message, "handler `hello` is not registered");
    let unknown = server.tasks().submit_task(task("hello", "")).await.unwrap_err();
    assert_eq!(reason(&unknown), "UNKNOWN_HANDLER");
}

#[tokio::test]
async fn tasks_of_a_removed_pool_wait_until_it_is_configured_again() {
    let handler = "[[handler]]\nname = \"work\"\nrunner = \"builtin\"\nbuiltin = \"io\"\npool = \"b\"\n";
    let both = format!("[[pool]]\nname = \"default\"\n[[pool]]\nname = \"b\"\nsize = 1\n{handler}");
    let server = Server::start(&both);
    let running = server.submit(task("work", "5")).await;
    let waiting = server.submit(task("work", "0.001")).await;
    server.wait_started(&running).await;
    reload(&server, "[[pool]]\nname = \"default\"\n").await;
    assert_eq!(server.get(&running).await.state(), TaskState::Running);
    assert_eq!(server.wait_finished(&running).await.state(), TaskState::Completed);
    let unknown = v1::GetPoolRequest { name: "b".to_owned() };
    assert_eq!(reason(&server.pools().get_pool(unknown).await.unwrap_err()), "UNKNOWN_POOL");
    server.wait_logged("a pool is not configured any more").await;
    assert_eq!(server.get(&waiting).await.state(), TaskState::Queued);
    reload(&server, &both).await;
    assert_eq!(server.wait_finished(&waiting).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn reloads_under_load_lose_no_task_and_start_none_twice() {
    let config = |size: usize, extra: &str| {
        let handler = "[[handler]]\nname = \"work\"\nrunner = \"builtin\"\nbuiltin = \"io\"\npool = \"b\"\n";
        format!("[[pool]]\nname = \"default\"\n[[pool]]\nname = \"b\"\nsize = {size}\n{extra}{handler}")
    };
    let server = Server::start(&config(4, ""));
    let mut ids = Vec::new();
    for round in 0..5 {
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![task("work", "0.002"); 1_000], batch_id: String::new() };
        ids.extend(server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids);
        match round {
            0 => reload(&server, &config(1, "")).await,
            1 => reload(&server, &config(9, "max_running_per_namespace = 3\n")).await,
            2 => {
                reload(&server, "[[pool]]\nname = \"default\"\n").await;
                reload(&server, &config(16, "")).await;
            }
            3 => write(&server, "[[pool]]\nname = 7\n"),
            _ => reload(&server, &config(32, "queue_limit = 100000\n")).await,
        }
    }
    for id in &ids {
        let ended = server.wait_finished(id).await;
        assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1));
    }
}

/// Replaces the content of a mounted ConfigMap as the kubelet does: by another target of the link `..data`.
fn project(directory: &Path, version: &str, config: &str) {
    let content = directory.join(version);
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("config.toml"), config).unwrap();
    symlink(version, directory.join("..data_tmp")).unwrap();
    std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

#[tokio::test]
async fn a_config_map_that_is_replaced_is_reloaded() {
    let directory = tempfile::tempdir().unwrap();
    project(directory.path(), "..1", "");
    symlink("..data/config.toml", directory.path().join("config.toml")).unwrap();
    let server = Server::start_in(directory, &script("hello", "echo one"));
    assert_eq!(result(&server, "hello").await, "one\n");
    project(server.directory.path(), "..2", &script("hello", "echo two"));
    reloaded(&server, 1).await;
    assert_eq!(result(&server, "hello").await, "two\n");
}

#[tokio::test]
async fn a_signal_reloads_and_settings_that_need_a_restart_are_named() {
    let server = Server::start("");
    server.signal(Signal::HUP);
    reloaded(&server, 1).await;
    assert!(!server.log().contains("used only after a restart"));
    reload(&server, "[server]\ndrain_limit = \"31s\"\n[limits]\ncrashes_max = 4\n").await;
    server.wait_logged("limits.crashes_max, server.drain_limit").await;
}
