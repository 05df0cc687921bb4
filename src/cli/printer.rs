//! Prints results: text for people, or the contract's JSON.

use std::io;

use futures_util::{StreamExt, stream};
use prost::{Message, Name};
use tonic::Status;

use crate::proto::json;

use super::error::{CliError, CommandResult, Exit};
use super::options::GlobalOptions;
use super::table::Table;
use super::view::{Text, View};
use super::{output, terminal};

/// Calls in flight of a command that makes one call for each of its arguments.
pub const CALLS_AT_ONCE: usize = 16;

/// Prints responses in the chosen format.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    json: bool,
    view: View,
}

impl Printer {
    pub fn new(options: &GlobalOptions) -> Self {
        Self { json: options.json(), view: View::of_stdout(options.time) }
    }

    pub fn is_json(self) -> bool {
        self.json
    }

    pub fn view(self) -> View {
        self.view
    }

    /// Prints a message as one line of JSON, or as the text that `text` returns. On a terminal, neither can control it.
    pub fn print<M: Message + Name, T: Into<Text>>(self, message: &M, text: impl FnOnce(&M) -> T) {
        if !self.json {
            let text = text(message).into();
            if !text.is_empty() {
                output::stdout_line(text);
            }
            return;
        }
        match json::encode_message(message) {
            Ok(line) => print_json(line),
            Err(error) => output::check_write(Err(invalid(error))),
        }
    }

    /// As [`print`](Self::print); the JSON also has the ID of the task that the message is about.
    pub fn print_named<M: Message + Name>(self, id: &str, message: &M, text: impl FnOnce(&M) -> Text) {
        if !self.json {
            return self.print(message, text);
        }
        let named = json::encode_message(message).and_then(|line| {
            let mut value: serde_json::Value = serde_json::from_slice(&line)?;
            value["taskId"] = id.into();
            serde_json::to_vec(&value)
        });
        match named {
            Ok(line) => print_json(line),
            Err(error) => output::check_write(Err(invalid(error))),
        }
    }

    /// Prints the values of a message as a table, in the order that the command line asks for.
    pub fn print_list<M: Message + Name, T>(
        self,
        message: &mut M,
        table: &Table<T>,
        values: impl Fn(&mut M) -> &mut Vec<T>,
    ) {
        let values_of = |message: &mut M| std::mem::take(values(message));
        let mut sorted = values_of(message);
        table.sort(&mut sorted, &self.view);
        let text = if self.json { Text::default() } else { table.text(&sorted, &self.view) };
        *values(message) = sorted;
        self.print(message, |_| text);
    }

    /// Gets and prints a message for each name, in this order. Where the server refuses one, the others are printed.
    pub async fn print_each<M: Message + Name>(
        self,
        names: Vec<String>,
        get: impl AsyncFn(String) -> Result<M, Status>,
        text: fn(&M, &View) -> Text,
    ) -> CommandResult {
        let mut exit = Exit::Success;
        let mut separator = "";
        let mut messages = stream::iter(names).map(|name| get(name)).buffered(CALLS_AT_ONCE);
        while let Some(message) = messages.next().await {
            match message.map_err(CliError::from) {
                Ok(message) => {
                    self.print(&message, |message| Text::from(separator).and(&text(message, &self.view)));
                    separator = "\n";
                }
                Err(error) if error.exit() == Exit::Unreachable => return Err(error),
                Err(error) => exit = exit.worse(error.report(self.json)),
            }
        }
        Ok(exit)
    }
}

fn print_json(mut line: Vec<u8>) {
    line.push(b'\n');
    if output::is_terminal() {
        line = terminal::json(&line).into_bytes();
    }
    output::stdout_bytes(&line);
}

fn invalid(error: serde_json::Error) -> io::Error {
    io::Error::other(format!("the response is invalid: {error}"))
}
