//! `lineshaft top`: what the server does, live on a terminal, or as text or JSON for other programs.

mod app;
mod draw;
mod feed;
mod keys;
mod text;

use std::io;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, EventStream, KeyEventKind};

use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CliError, CommandResult, Exit};
use super::output;
use super::printer::Printer;
use super::time::{parse_duration, to_proto};
use app::App;
use feed::Feed;

#[derive(Debug, Args)]
pub struct Options {
    /// Pools to show [default: all]
    #[arg(value_name = "POOL", add = complete::pools())]
    pools: Vec<String>,
    /// Refresh interval, 100ms to 1m
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = parse_duration)]
    interval: Duration,
    /// Print once and exit; the rates are those of one interval
    #[arg(long)]
    once: bool,
}

impl Options {
    fn request(&self) -> v1::StreamPoolMetricsRequest {
        v1::StreamPoolMetricsRequest {
            pools: self.pools.clone(),
            interval: Some(to_proto(self.interval)),
            include_workers: true,
        }
    }
}

pub async fn run(options: Options, server: &str, client: Client, printer: Printer) -> CommandResult {
    if options.once || printer.is_json() || !output::is_terminal() {
        text::run(options.request(), options.once, &client, printer).await?;
        return Ok(Exit::Success);
    }
    // Before the terminal changes: a server that does not answer is an error like that of other commands.
    client.system().get_server_info(v1::GetServerInfoRequest {}).await?;
    let mut terminal = ratatui::try_init().map_err(|error| failed(&error))?;
    let shown = show(&mut terminal, App::new(server, printer.view()), Feed::start(client, options.request())).await;
    ratatui::restore();
    shown.map_err(|error| failed(&error))?;
    Ok(Exit::Success)
}

fn failed(error: &io::Error) -> CliError {
    CliError::Usage(format!("the terminal cannot be used: {error}"))
}

/// Draws after every key and every message, until the user quits.
async fn show(terminal: &mut DefaultTerminal, mut app: App, mut feed: Feed) -> io::Result<()> {
    let mut events = EventStream::new();
    loop {
        app.renew();
        terminal.draw(|frame| draw::draw(frame, &mut app))?;
        feed.follow(app.wanted());
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if let Some(action) = keys::press(&mut app, key) {
                        match action {
                            keys::Action::Quit => return Ok(()),
                            keys::Action::Call(call) => feed.call(call),
                        }
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            message = feed.next() => {
                app.receive(message);
                while let Some(message) = feed.ready() {
                    app.receive(message);
                }
            }
        }
    }
}
