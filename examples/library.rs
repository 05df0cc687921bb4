//! The whole service in one program: `cargo run --example library`, then in a second terminal
//! `lineshaft task run greet --json '"Ada"'`.

use lineshaft::{BoxError, Server, TaskContext};

async fn greet(_: TaskContext, name: String) -> Result<String, BoxError> {
    Ok(format!("Hello, {name}!"))
}

/// Computes for long, so it runs on a thread of its own.
fn fibonacci(task: TaskContext, steps: u32) -> Result<u64, BoxError> {
    let (mut last, mut next) = (0_u64, 1);
    for step in 0..steps {
        if task.is_cancelled() {
            return Err("cancelled".into());
        }
        task.progress(f64::from(step) / f64::from(steps), "adding");
        (last, next) = (next, last.wrapping_add(next));
    }
    Ok(last)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut server = Server::builder().handler("greet", greet).blocking_handler("fibonacci", fibonacci);
    let mut arguments = std::env::args().skip(1);
    if let Some(directory) = arguments.next() {
        server = server.data_directory(directory); // by default ./lineshaft-data
    }
    if let Some(address) = arguments.next() {
        server = server.listen(address.parse()?); // by default 127.0.0.1:7070
    }
    server.serve().await?; // until SIGTERM or Ctrl-C
    Ok(())
}
