//! `lineshaft task output`: the output of an attempt; with `--follow` across broken connections.

use tonic::{Code, Status};

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit};
use crate::cli::format::Printer;
use crate::cli::output;
use crate::cli::reconnect::{GIVE_UP_AFTER, Reconnect};
use crate::cli::terminal;
use crate::proto::v1;

use super::print;

pub async fn run(request: v1::ReadOutputRequest, client: Client, printer: Printer) -> CommandResult {
    let reconnect = Reconnect::new(GIVE_UP_AFTER);
    let mut reader = Reader { request, started: None, printer, begun: Vec::new(), reconnect };
    let read = if reader.request.follow { reader.follow(&client).await } else { reader.read(&client).await };
    output::stdout_bytes(terminal::bytes(&reader.begun).as_bytes());
    read?;
    Ok(Exit::Success)
}

struct Reader {
    /// Asks for what is not printed yet.
    request: v1::ReadOutputRequest,
    /// When the attempt started whose output was printed last; kept to follow it.
    started: Option<Started>,
    printer: Printer,
    /// The beginning of a character whose end is in the next piece.
    begun: Vec<u8>,
    reconnect: Reconnect,
}

struct Started {
    attempt: i32,
    /// `None`: the task had gone on by then.
    at: Option<prost_types::Timestamp>,
}

impl Reader {
    /// Prints until the server ends the stream, and keeps in the request where to resume.
    async fn read(&mut self, client: &Client) -> Result<(), Status> {
        let mut pieces = client.tasks().read_output(self.request.clone()).await?.into_inner();
        self.reconnect.answered();
        while let Some(piece) = pieces.message().await? {
            self.reconnect.answered();
            if self.request.follow && self.started.as_ref().is_none_or(|started| started.attempt != piece.attempt) {
                // Before the piece is printed, so that this is not the start of a later run of the attempt.
                let at = match get(client, &self.request.task_id).await {
                    Ok(task) => task.started_at.filter(|_| task.attempt == piece.attempt),
                    // The task was deleted after its end.
                    Err(status) if status.code() == Code::NotFound => None,
                    Err(status) => return Err(status),
                };
                self.started = Some(Started { attempt: piece.attempt, at });
            }
            self.request.attempt = piece.attempt;
            self.request.offset = piece.offset + i64::try_from(piece.data.len()).unwrap_or(0);
            self.print(&piece);
        }
        Ok(())
    }

    /// Reads the attempts of the task to the end of the last one. After a broken connection attempt by attempt, because a
    /// new call for all of them would apply the offset to the present attempt.
    async fn follow(&mut self, client: &Client) -> Result<(), Status> {
        let all_attempts = self.request.attempt == 0;
        let mut is_resumed = false;
        loop {
            match self.read(client).await {
                Ok(()) if all_attempts && is_resumed && self.request.attempt > 0 => {
                    if self.is_last(client).await? {
                        return Ok(());
                    }
                    (self.request.attempt, self.request.offset) = (self.request.attempt + 1, 0);
                }
                Ok(()) => return Ok(()),
                // The task ended without the attempt that was expected after the last one.
                Err(status) if is_resumed && status.code() == Code::InvalidArgument => {
                    return if self.is_last(client).await? { Ok(()) } else { Err(status) };
                }
                Err(status) => {
                    self.reconnect.pause(status).await?;
                    self.check_start(client).await?;
                    is_resumed = true;
                }
            }
        }
    }

    /// Whether the task has finished without an attempt after the one that is asked for.
    async fn is_last(&mut self, client: &Client) -> Result<bool, Status> {
        match self.task(client).await {
            Ok(task) => Ok(print::is_terminal(task.state()) && task.attempt <= self.request.attempt),
            // The task was deleted after its end.
            Err(status) if status.code() == Code::NotFound => Ok(true),
            Err(status) => Err(status),
        }
    }

    /// An attempt that was interrupted starts again with the same number, and its output from the beginning.
    async fn check_start(&mut self, client: &Client) -> Result<(), Status> {
        let Some(Started { attempt, at }) = &self.started else { return Ok(()) };
        let (attempt, at) = (*attempt, *at);
        let task = self.task(client).await?;
        let is_other = at.is_some() && task.started_at != at;
        if task.attempt < attempt || (task.attempt == attempt && is_other) {
            output::status(format_args!("attempt {attempt} was interrupted and starts again"));
            (self.request.offset, self.started) = (0, None);
        }
        Ok(())
    }

    async fn task(&mut self, client: &Client) -> Result<v1::Task, Status> {
        loop {
            match get(client, &self.request.task_id).await {
                Ok(task) => return Ok(task),
                Err(status) => self.reconnect.pause(status).await?,
            }
        }
    }

    /// What is not a terminal gets exactly the bytes.
    fn print(&mut self, piece: &v1::ReadOutputResponse) {
        if piece.skipped > 0 {
            output::status(format_args!("[{} bytes were not stored]", piece.skipped));
        }
        if self.printer.is_json() {
            self.printer.print(piece, |_| String::new());
        } else if output::is_terminal() {
            self.begun.extend_from_slice(&piece.data);
            let rest = self.begun.split_off(self.begun.len() - terminal::incomplete(&self.begun));
            output::stdout_bytes(terminal::bytes(&self.begun).as_bytes());
            self.begun = rest;
        } else {
            output::stdout_bytes(&piece.data);
        }
    }
}

async fn get(client: &Client, task: &str) -> Result<v1::Task, Status> {
    let request = v1::GetTaskRequest { task_id: task.to_owned(), include_payload: false };
    Ok(client.tasks().get_task(request).await?.into_inner().task.unwrap_or_default())
}
