//! Remote workers, played by the test.

mod artifacts;
mod assignments;
mod cancels;
mod chunks;
mod leases;
mod link_faults;
mod many_workers;
mod misuse;
mod suspended;

use std::time::Duration;

use lineshaft::proto::v1::{
    self, attempt_finished::Outcome, server_message::Kind as Sent, worker_message::Kind as Report,
    worker_service_client::WorkerServiceClient,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::support::{Server, TIMEOUT};

const CONFIG: &str = r#"
[server]
worker_lease = "3s"
[[handler]]
name = "resize"
runner = "remote"
[[handler]]
name = "other"
runner = "remote"
"#;

/// A stream of a worker.
struct Worker {
    requests: mpsc::UnboundedSender<v1::WorkRequest>,
    responses: Streaming<v1::WorkResponse>,
    welcome: v1::WorkerWelcome,
    /// Messages that have arrived and were not read.
    unread: std::collections::VecDeque<Sent>,
}

fn hello(id: &str, handlers: &[&str], slots: i32) -> v1::WorkerHello {
    let handler = |name: &&str| v1::WorkerHandler { name: (*name).to_owned(), description: String::new() };
    v1::WorkerHello {
        worker_id: id.to_owned(),
        handlers: handlers.iter().map(handler).collect(),
        slots,
        ..v1::WorkerHello::default()
    }
}

impl Worker {
    async fn connect(server: &Server, hello: v1::WorkerHello) -> Self {
        Self::try_connect(server, first(hello)).await.unwrap()
    }

    async fn try_connect(server: &Server, first: v1::WorkRequest) -> Result<Self, Status> {
        Self::connect_over(server.channel(), first).await
    }

    async fn connect_over(channel: Channel, first: v1::WorkRequest) -> Result<Self, Status> {
        let (requests, sent) = mpsc::unbounded_channel();
        requests.send(first).unwrap();
        let sent = tokio_stream::wrappers::UnboundedReceiverStream::new(sent);
        let mut responses = WorkerServiceClient::new(channel).work(sent).await?.into_inner();
        let welcome = responses.message().await?.expect("a welcome").welcome.expect("a welcome");
        Ok(Self { requests, responses, welcome, unread: std::collections::VecDeque::new() })
    }

    /// Sends heartbeats until the stream has ended.
    fn keep_alive(&self) {
        let requests = self.requests.clone();
        tokio::spawn(async move {
            let heartbeat = v1::WorkerMessage { kind: Some(Report::Heartbeat(v1::Heartbeat {})) };
            let request = v1::WorkRequest { hello: None, messages: vec![heartbeat] };
            while requests.send(request.clone()).is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    fn send(&self, reports: impl IntoIterator<Item = Report>) {
        let messages = reports.into_iter().map(|kind| v1::WorkerMessage { kind: Some(kind) }).collect();
        self.requests.send(v1::WorkRequest { hello: None, messages }).unwrap();
    }

    /// The next message that is not a heartbeat.
    async fn next(&mut self) -> Result<Sent, Status> {
        loop {
            if let Some(message) = self.unread.pop_front() {
                return Ok(message);
            }
            let response = tokio::time::timeout(TIMEOUT, self.responses.message()).await.expect("a message")?;
            let messages = response.expect("the stream goes on").messages;
            let kinds = messages.into_iter().filter_map(|message| message.kind);
            self.unread.extend(kinds.filter(|kind| !matches!(kind, Sent::Heartbeat(_))));
        }
    }

    /// The next attempt; acknowledgements before it are not looked at.
    async fn assigned(&mut self) -> v1::AttemptAssigned {
        loop {
            match self.next().await.unwrap() {
                Sent::Assigned(assigned) => return assigned,
                Sent::Settled(_) => {}
                other => panic!("{other:?} instead of an attempt"),
            }
        }
    }

    async fn cancelled(&mut self) -> v1::AttemptCancel {
        match self.next().await.unwrap() {
            Sent::Cancel(cancel) => cancel,
            other => panic!("{other:?} instead of a cancel"),
        }
    }

    async fn settled(&mut self) -> Vec<String> {
        match self.next().await.unwrap() {
            Sent::Settled(settled) => settled.tokens,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    /// How the server ends the stream.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    fn accept(&self, token: &str) {
        self.send([Report::Accepted(v1::AttemptAccepted { token: token.to_owned() })]);
    }

    fn finish(&self, token: &str, outcome: Outcome) {
        self.send([finished(token, outcome)]);
    }
}

fn finished(token: &str, outcome: Outcome) -> Report {
    let outcome = Some(outcome);
    Report::Finished(v1::AttemptFinished { token: token.to_owned(), outcome, ..v1::AttemptFinished::default() })
}

fn result(text: &str) -> Outcome {
    let kind = Some(v1::payload::Kind::Data(text.to_owned().into()));
    Outcome::Result(v1::Payload { kind, content_type: "text/plain".to_owned() })
}

fn stopped() -> Outcome {
    Outcome::Stopped(v1::AttemptStopped::default())
}

fn first(hello: v1::WorkerHello) -> v1::WorkRequest {
    v1::WorkRequest { hello: Some(hello), messages: vec![] }
}

async fn listed(server: &Server) -> Vec<v1::Worker> {
    let (mut workers, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListWorkersRequest { pool: "remote".to_owned(), page_size: 300, page_token };
        let page = server.pools().list_workers(request).await.unwrap().into_inner();
        workers.extend(page.workers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return workers;
        }
    }
}
