//! Calls to the server while the terminal is shown. All end with the feed.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tonic::Status;

use crate::cli::client::Client;
use crate::client::{may_help, pause_after};
use crate::proto::v1;

/// Between two lists of tasks.
const LIST_INTERVAL: Duration = Duration::from_secs(1);
/// Between two lists of failures, for which the server reads many tasks.
const FAILURES_INTERVAL: Duration = Duration::from_secs(3);
/// Tasks of a list.
const LIST_SIZE: i32 = 200;
/// Messages that are not drawn yet. A call waits when there are as many.
const MESSAGES_MAX: usize = 64;

/// What the current view needs, besides the metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    Nothing,
    Tasks(Box<v1::TaskFilter>),
    Failures,
    /// A task and its output.
    Task {
        id: String,
        stderr: bool,
    },
}

/// A change that the user has confirmed.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Cancel { id: String, force: bool },
    Retry { id: String },
    Pause { pool: String, paused: bool },
}

#[derive(Debug)]
pub enum Message {
    Sample(Box<v1::StreamPoolMetricsResponse>),
    /// An answer to what was wanted when it was sent, which can be something else by now.
    Tasks(Wanted, Vec<v1::Task>),
    Failures(Vec<v1::FailureGroup>),
    Task(Wanted, Box<v1::Task>),
    Output(Wanted, Box<v1::ReadOutputResponse>),
    /// The result of a [`Call`], for the status line.
    Done(String),
    /// The server refuses a call.
    Failed(String),
    /// The server does not answer; it is called again.
    Lost(String),
}

pub struct Feed {
    client: Client,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    calls: JoinSet<()>,
    wanted: Wanted,
    following: Vec<AbortHandle>,
}

impl Feed {
    pub fn start(client: Client, request: v1::StreamPoolMetricsRequest) -> Self {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let mut calls = JoinSet::new();
        calls.spawn(samples(client.clone(), request, sender.clone()));
        Self { client, sender, messages, calls, wanted: Wanted::Nothing, following: Vec::new() }
    }

    pub async fn next(&mut self) -> Message {
        // The feed has a sender.
        self.messages.recv().await.unwrap_or_else(|| Message::Failed("no more messages".to_owned()))
    }

    /// A message that has already come.
    pub fn ready(&mut self) -> Option<Message> {
        self.messages.try_recv().ok()
    }

    /// Calls the server for what is wanted from now on.
    pub fn follow(&mut self, wanted: Wanted) {
        while self.calls.try_join_next().is_some() {}
        if wanted == self.wanted {
            return;
        }
        for call in self.following.drain(..) {
            call.abort();
        }
        let (client, sender) = (self.client.clone(), self.sender.clone());
        let answers = Answers { client, wanted: wanted.clone(), sender };
        self.following = match wanted.clone() {
            Wanted::Nothing => Vec::new(),
            Wanted::Tasks(filter) => vec![self.calls.spawn(answers.lists(*filter))],
            Wanted::Failures => vec![self.calls.spawn(answers.failures())],
            Wanted::Task { id, stderr } => {
                let task = self.calls.spawn(answers.clone().task(id.clone()));
                vec![task, self.calls.spawn(answers.output(id, stderr))]
            }
        };
        self.wanted = wanted;
    }

    pub fn call(&mut self, call: Call) {
        let (client, sender) = (self.client.clone(), self.sender.clone());
        self.calls.spawn(async move {
            let message = match change(&client, call).await {
                Ok(text) => Message::Done(text),
                Err(status) => Message::Failed(status.message().to_owned()),
            };
            send(&sender, message).await;
        });
    }
}

async fn change(client: &Client, call: Call) -> Result<String, Status> {
    match call {
        Call::Cancel { id, force } => {
            let mode = if force { v1::CancelMode::Force } else { v1::CancelMode::Graceful }.into();
            let request = v1::CancelTaskRequest { task_id: id.clone(), mode, ..v1::CancelTaskRequest::default() };
            let response = client.tasks().cancel_task(request).await?.into_inner();
            let is_stopping = response.state() == v1::TaskState::Running;
            Ok(format!("{id} {}", if is_stopping { "is asked to stop" } else { "is cancelled" }))
        }
        Call::Retry { id } => {
            let request = v1::RetryTaskRequest { task_id: id.clone(), ..v1::RetryTaskRequest::default() };
            let submitted = client.tasks().retry_task(request).await?.into_inner().task.unwrap_or_default();
            Ok(format!("{id} is submitted again as {}", submitted.task_id))
        }
        Call::Pause { pool, paused } => {
            let name = pool.clone();
            let request = v1::UpdatePoolRequest { name, paused: Some(paused), ..v1::UpdatePoolRequest::default() };
            client.pools().update_pool(request).await?;
            Ok(format!("pool {pool} is {}", if paused { "paused" } else { "active" }))
        }
    }
}

async fn send(sender: &mpsc::Sender<Message>, message: Message) {
    // The terminal is no longer shown.
    let _ = sender.send(message).await;
}

/// Reports a failed call and waits before the next one, longer after each failure in a row.
async fn pause(status: &Status, failures: &mut u32, sender: &mpsc::Sender<Message>) {
    let text = status.message().to_owned();
    // What the server refuses now, such as for the lack of a role, it may grant later.
    let (message, pauses) =
        if may_help(status) { (Message::Lost(text), *failures) } else { (Message::Failed(text), *failures + 4) };
    send(sender, message).await;
    tokio::time::sleep(pause_after(pauses)).await;
    *failures += 1;
}

async fn samples(client: Client, request: v1::StreamPoolMetricsRequest, sender: mpsc::Sender<Message>) {
    let mut failures = 0;
    loop {
        let sampled = async {
            let mut samples = client.pools().stream_pool_metrics(request.clone()).await?.into_inner();
            while let Some(sample) = samples.message().await? {
                failures = 0;
                send(&sender, Message::Sample(Box::new(sample))).await;
            }
            Err::<(), _>(Status::unavailable("the server ended the stream"))
        };
        if let Err(status) = sampled.await {
            pause(&status, &mut failures, &sender).await;
        }
    }
}

/// Calls for what one view needs.
#[derive(Clone)]
struct Answers {
    client: Client,
    wanted: Wanted,
    sender: mpsc::Sender<Message>,
}

impl Answers {
    async fn lists(self, filter: v1::TaskFilter) {
        let mut failures = 0;
        let request =
            v1::ListTasksRequest { filter: Some(filter), page_size: LIST_SIZE, ..v1::ListTasksRequest::default() };
        loop {
            match self.client.tasks().list_tasks(request.clone()).await {
                Ok(page) => {
                    failures = 0;
                    send(&self.sender, Message::Tasks(self.wanted.clone(), page.into_inner().tasks)).await;
                    tokio::time::sleep(LIST_INTERVAL).await;
                }
                Err(status) => pause(&status, &mut failures, &self.sender).await,
            }
        }
    }

    async fn failures(self) {
        let mut failures = 0;
        loop {
            match self.client.tasks().list_failure_groups(v1::ListFailureGroupsRequest::default()).await {
                Ok(list) => {
                    failures = 0;
                    send(&self.sender, Message::Failures(list.into_inner().groups)).await;
                    tokio::time::sleep(FAILURES_INTERVAL).await;
                }
                Err(status) => pause(&status, &mut failures, &self.sender).await,
            }
        }
    }

    /// Sends the task until it has ended.
    async fn task(self, id: String) {
        let mut failures = 0;
        loop {
            let request =
                v1::GetTaskRequest { task_id: id.clone(), include_payload: true, ..v1::GetTaskRequest::default() };
            match self.client.tasks().get_task(request).await {
                Ok(response) => {
                    failures = 0;
                    let task = response.into_inner().task.unwrap_or_default();
                    let has_ended = task.finished_at.is_some();
                    send(&self.sender, Message::Task(self.wanted.clone(), Box::new(task))).await;
                    if has_ended {
                        return;
                    }
                    tokio::time::sleep(LIST_INTERVAL).await;
                }
                Err(status) => pause(&status, &mut failures, &self.sender).await,
            }
        }
    }

    /// Sends the output of the task until it has ended. After a broken connection, the present attempt is read again from
    /// where the last piece ended.
    async fn output(self, id: String, stderr: bool) {
        let stream = if stderr { v1::OutputStream::Stderr } else { v1::OutputStream::Stdout }.into();
        let mut request =
            v1::ReadOutputRequest { task_id: id, stream, follow: true, ..v1::ReadOutputRequest::default() };
        let mut failures = 0;
        loop {
            let read = async {
                let mut pieces = self.client.tasks().read_output(request.clone()).await?.into_inner();
                while let Some(piece) = pieces.message().await? {
                    failures = 0;
                    request.offset = piece.offset + i64::try_from(piece.data.len()).unwrap_or(0);
                    send(&self.sender, Message::Output(self.wanted.clone(), Box::new(piece))).await;
                }
                Ok(())
            };
            match read.await {
                Ok(()) => return,
                Err(status) if may_help(&status) => pause(&status, &mut failures, &self.sender).await,
                Err(status) => return send(&self.sender, Message::Failed(status.message().to_owned())).await,
            }
        }
    }
}
