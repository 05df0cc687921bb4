//! Progress of commands that take longer than a second: a line on stderr, if it is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

/// Commands that end before this show no progress.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Removes its line when it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    reveal: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of `total` steps, which a participle such as `submitted` describes; `None`: the total is not known.
    pub fn new(total: Option<u64>, done: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_message(done);
        bar.set_style(style(total));
        let shown = bar.clone();
        let reveal = std::io::stderr().is_terminal().then(|| {
            tokio::spawn(async move {
                tokio::time::sleep(SHOWN_AFTER).await;
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(REDRAW_INTERVAL);
            })
        });
        Self { bar, reveal }
    }

    pub fn add(&self, steps: u64) {
        self.bar.inc(steps);
    }

    /// Shows `done` of `total` steps, where the total becomes known meanwhile, or is not known any more.
    pub fn set(&self, done: u64, total: Option<u64>) {
        if self.bar.length().is_some() != total.is_some() {
            self.bar.set_style(style(total));
        }
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_position(done);
    }

    /// What is done, instead of the participle.
    pub fn describe(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Hides the line while other lines are written.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

fn style(total: Option<u64>) -> ProgressStyle {
    let template = match total {
        Some(_) => "{bar:30} {human_pos}/{human_len} {msg}, {elapsed}",
        None => "{spinner} {human_pos} {msg}, {elapsed}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(reveal) = &self.reveal {
            reveal.abort();
        }
        self.bar.finish_and_clear();
    }
}
