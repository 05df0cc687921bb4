//! `lineshaft task output`: the output of an attempt; with `--follow` across broken connections.

use bytes::Buf;
use tonic::{Code, Status};

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit};
use crate::cli::output;
use crate::cli::printer::Printer;
use crate::cli::reconnect::{GIVE_UP_AFTER, Reconnect};
use crate::cli::terminal;
use crate::model::excerpt::unfinished;
use crate::proto::v1;

use super::print;

/// Prints the output, or the last `tail` lines of it and what follows them.
pub async fn run(
    request: v1::ReadOutputRequest,
    tail: Option<usize>,
    client: Client,
    printer: Printer,
) -> CommandResult {
    let reconnect = Reconnect::new(GIVE_UP_AFTER);
    let mut reader = Reader { request, started: None, printer, kept: None, begun: Vec::new(), reconnect };
    let read = match tail {
        Some(lines) => reader.tail(lines, &client).await,
        None if reader.request.follow => reader.follow(reader.request.attempt == 0, false, &client).await,
        None => reader.read(&client).await,
    };
    output::stdout_bytes(terminal::bytes(&reader.begun).as_bytes());
    read?;
    reader.hint(&client).await;
    Ok(Exit::Success)
}

struct Reader {
    /// Asks for what is not printed yet.
    request: v1::ReadOutputRequest,
    /// When the attempt started whose output was printed last; kept to follow it.
    started: Option<Started>,
    printer: Printer,
    /// Output that is kept and not printed.
    kept: Option<v1::ReadOutputResponse>,
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

    /// Prints the last lines, then what follows them. The server keeps little enough of an attempt to read all of it.
    async fn tail(&mut self, lines: usize, client: &Client) -> Result<(), Status> {
        let (follow, all_attempts) = (self.request.follow, self.request.attempt == 0);
        self.request.follow = false;
        self.kept = Some(v1::ReadOutputResponse::default());
        self.read(client).await?;
        if let Some(mut kept) = self.kept.take() {
            let start = start_of_last(lines, &kept.data);
            kept.offset += i64::try_from(start).unwrap_or(0);
            kept.data.advance(start);
            if !kept.data.is_empty() {
                self.print(&kept);
            }
        }
        if !follow {
            return Ok(());
        }
        self.request.follow = true;
        let has_begun = self.request.attempt > 0;
        self.follow(all_attempts, has_begun, client).await
    }

    /// Reads the attempts of the task to the end of the last one. After a broken connection attempt by attempt, because a
    /// new call for all of them would apply the offset to the present attempt.
    async fn follow(&mut self, all_attempts: bool, mut is_resumed: bool, client: &Client) -> Result<(), Status> {
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

    /// Where the output is, if the task has written none to stdout.
    async fn hint(&self, client: &Client) {
        if self.request.offset > 0 || self.request.stream() == v1::OutputStream::Stderr {
            return;
        }
        match get(client, &self.request.task_id).await {
            Ok(task) if task.stdout_bytes == 0 && task.stderr_bytes > 0 => {
                let bytes = task.stderr_bytes;
                output::status(format_args!("Nothing on stdout; --stderr prints the {bytes} bytes on stderr"));
            }
            _ => {}
        }
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
        if let Some(kept) = &mut self.kept {
            if kept.data.is_empty() || piece.skipped > 0 {
                (kept.offset, kept.attempt) = (piece.offset, piece.attempt);
                kept.data.clear();
            }
            kept.data = [&kept.data[..], &piece.data].concat().into();
            return;
        }
        if piece.skipped > 0 {
            output::status(format_args!("[{} bytes were not stored]", piece.skipped));
        }
        if self.printer.is_json() {
            self.printer.print(piece, |_| String::new());
        } else if output::is_terminal() {
            self.begun.extend_from_slice(&piece.data);
            let rest = self.begun.split_off(self.begun.len() - unfinished(&self.begun));
            output::stdout_bytes(terminal::bytes(&self.begun).as_bytes());
            self.begun = rest;
        } else {
            output::stdout_bytes(&piece.data);
        }
    }
}

/// Where the last lines begin. A line without a newline at its end counts.
fn start_of_last(lines: usize, data: &[u8]) -> usize {
    let text = data.strip_suffix(b"\n").unwrap_or(data);
    let ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    if lines == 0 { data.len() } else { ends.take(lines).nth(lines - 1).unwrap_or(0) }
}

async fn get(client: &Client, task: &str) -> Result<v1::Task, Status> {
    let request = v1::GetTaskRequest { task_id: task.to_owned(), ..v1::GetTaskRequest::default() };
    Ok(client.tasks().get_task(request).await?.into_inner().task.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_with_and_without_a_newline_at_the_end() {
        for (data, lines, last) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(&data[start_of_last(lines, data.as_bytes())..], last, "{data:?} {lines}");
        }
    }
}
