//! Your functions as tasks: start `lineshaft serve`, then `cargo run --example worker`, then in a third terminal
//! `lineshaft task run greet --json '"Ada"'` and `lineshaft task run greet-all --json '["Ada", "Grace"]'`.

use lineshaft::{BoxError, Client, TaskContext, Worker};

async fn greet(_: TaskContext, name: String) -> Result<String, BoxError> {
    Ok(format!("Hello, {name}!"))
}

/// Submits a task for each name. While it waits for them, it needs no slot.
async fn greet_all(client: Client, task: TaskContext, names: Vec<String>) -> Result<Vec<String>, BoxError> {
    let mut tasks = Vec::new();
    for name in names {
        tasks.push(client.submit("greet", name).await?);
    }
    task.progress(0.5, "waiting for the greetings");
    let mut greetings = Vec::new();
    for task in tasks {
        greetings.push(task.result().await?);
    }
    Ok(greetings)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let client = Client::from_env()?; // LINESHAFT_SERVER, else 127.0.0.1:7070
    let children = client.clone();
    let worker = Worker::new(&client)
        .handler("greet", greet)
        .handler("greet-all", move |task, names| greet_all(children.clone(), task, names))
        .concurrency(1);
    worker.run().await?; // until SIGTERM or Ctrl-C
    Ok(())
}
