//! The ends of the tasks of a batch, across broken connections.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tonic::Status;

use crate::cli::client::Client;
use crate::cli::reconnect::Reconnect;
use crate::cli::task::{drain_token, is_terminal};
use crate::proto::v1::{self, watch_tasks_response::Kind};

/// Ends that wait to be read.
const AHEAD: usize = 4_096;

/// The IDs of the tasks that end after the token, and in the end the error with which the watch has ended. The watch ends
/// with the guard.
pub fn watch(
    client: Client,
    batch_id: String,
    resume_token: String,
) -> (mpsc::Receiver<Result<String, Status>>, DropGuard) {
    let (sender, ended) = mpsc::channel(AHEAD);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let states = [v1::TaskState::Completed, v1::TaskState::Failed, v1::TaskState::Cancelled];
    let filter = v1::TaskFilter { batch_id, states: states.map(i32::from).to_vec(), ..v1::TaskFilter::default() };
    let request = v1::WatchTasksRequest { filter: Some(filter), resume_token, ..v1::WatchTasksRequest::default() };
    tokio::spawn(async move {
        tokio::select! {
            error = send_ends(client, request, &sender) => drop(sender.send(Err(error)).await),
            () = stopped.cancelled() => {}
        }
    });
    (ended, stop.drop_guard())
}

/// Returns when calling again does not help.
async fn send_ends(
    client: Client,
    mut request: v1::WatchTasksRequest,
    sender: &mpsc::Sender<Result<String, Status>>,
) -> Status {
    let mut reconnect = Reconnect::new(Duration::MAX);
    loop {
        let watched = async {
            let mut messages = client.tasks().watch_tasks(request.clone()).await?.into_inner();
            while let Some(message) = messages.message().await? {
                reconnect.answered();
                match message.kind {
                    Some(Kind::Event(event)) => {
                        request.resume_token.clone_from(&event.resume_token);
                        if is_terminal(event.state()) && sender.send(Ok(event.task_id)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Kind::Progress(progress)) => request.resume_token = progress.resume_token,
                    _ => {}
                }
            }
            Ok::<_, Status>(())
        };
        let status = watched.await.err().unwrap_or_else(|| Status::unavailable("the server ended the watch"));
        if let Some(token) = drain_token(&status) {
            request.resume_token = token;
            reconnect.answered();
        }
        if let Err(status) = reconnect.pause(status).await {
            return status;
        }
    }
}
