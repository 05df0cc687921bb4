//! What people see while it happens: bars on a terminal, lines otherwise.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::plan::{End, Plan};
use super::story::{Story, is_terminal};
use crate::cli::child::{Child, Result, micros, span};
use crate::cli::say;
use crate::proto::v1::pool_service_client::PoolServiceClient;
use crate::proto::v1::{PoolMetrics, StopMethod, StreamPoolMetricsRequest, TaskEvent, TaskState};

/// Between two readings of the pools on a terminal.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Between two readings of the pools in lines.
const LINE_INTERVAL: Duration = Duration::from_millis(500);

/// Where the demo shows what happens.
pub struct Screen {
    bars: Option<Bars>,
    pools: JoinHandle<()>,
}

#[derive(Clone)]
struct Bars {
    all: MultiProgress,
    tasks: ProgressBar,
}

impl Screen {
    /// Begins to show the pools of a server, and how many of so many tasks have ended.
    pub async fn new(child: &Child, tasks: usize) -> Result<Self> {
        let bars = std::io::stderr().is_terminal().then(|| Bars::new(tasks));
        let interval = span(if bars.is_some() { BAR_INTERVAL } else { LINE_INTERVAL });
        let mut client = PoolServiceClient::new(child.connect().await?);
        let request = StreamPoolMetricsRequest { interval, ..StreamPoolMetricsRequest::default() };
        let mut readings = client.stream_pool_metrics(request).await?.into_inner();
        let all = bars.as_ref().map(|bars| bars.all.clone());
        let pools = tokio::spawn(async move {
            let mut lines = BTreeMap::new();
            while let Ok(Some(reading)) = readings.message().await {
                for pool in &reading.pools {
                    show_pool(all.as_ref(), &mut lines, pool);
                }
            }
        });
        Ok(Self { bars, pools })
    }

    /// Shows a line.
    pub fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => drop(bars.all.println(text)),
            None => say::line(text),
        }
    }

    /// Shows an event; each that is not plain success gets a line.
    pub fn show(&self, event: &TaskEvent, plan: &Plan, story: &Story) {
        if let Some(bars) = &self.bars
            && is_terminal(event.state())
        {
            bars.tasks.inc(1);
        }
        let Some(planned) = story.number(&event.task_id).map(|number| &plan.tasks[number]) else { return };
        if matches!(planned.end, End::Json(_) | End::Numbers(_)) && event.failure.is_none() {
            return;
        }
        let from = match event.previous_state() {
            TaskState::Unspecified => String::new(),
            state => format!("{} → ", short(state)),
        };
        let (handler, to, note) = (&event.handler, short(event.state()), note(event));
        self.line(&format!("  {handler:<10} {from}{to}{note}"));
    }

    /// Takes the bars away.
    pub fn close(&self) {
        self.pools.abort();
        if let Some(bars) = &self.bars {
            let _ = bars.all.clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

impl Bars {
    fn new(tasks: usize) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("  tasks      [{bar:40}] {pos}/{len} {elapsed}");
        let bar = ProgressBar::new(tasks as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { tasks: all.add(bar), all }
    }
}

/// One line for each pool: on a terminal always the same, otherwise a new one when something changed.
fn show_pool(all: Option<&MultiProgress>, lines: &mut BTreeMap<String, (ProgressBar, String)>, pool: &PoolMetrics) {
    let PoolMetrics { pool: name, busy, size, queued, waiting, completed, failed, cancelled, .. } = pool;
    let text = format!(
        "  {name:<10} {busy}/{size} busy  {queued} queued  {waiting} waiting  \
         {completed} completed  {failed} failed  {cancelled} cancelled"
    );
    let (bar, last) = lines.entry(name.clone()).or_insert_with(|| {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let bar = match all {
            Some(all) => all.add(bar),
            None => bar,
        };
        (bar, String::new())
    });
    match all {
        Some(_) => bar.set_message(text),
        None if *last != text => {
            say::line(&text);
            *last = text;
        }
        None => {}
    }
}

fn note(event: &TaskEvent) -> String {
    let attempt = (event.attempt > 0).then(|| format!("attempt {}", event.attempt));
    let failure = event.failure.as_ref().map(|failure| failure.message.clone());
    let cancel = event.cancel.as_ref().map(|receipt| match receipt.method() {
        StopMethod::Unspecified => "asked to stop".to_owned(),
        method => {
            let span = micros(receipt.stopped_at.as_ref()) - micros(receipt.requested_at.as_ref());
            let (whole, part) = (span / 1_000, span % 1_000);
            format!("stopped by {} after {whole}.{part:03} ms", method_name(method))
        }
    });
    let notes = [attempt, failure, cancel].into_iter().flatten();
    notes.fold(String::new(), |line, note| line + "  " + &note)
}

/// The state without the prefix of its enum.
pub fn short(state: TaskState) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("TASK_STATE_").unwrap_or(name)
}

fn method_name(method: StopMethod) -> &'static str {
    let name = method.as_str_name();
    name.strip_prefix("STOP_METHOD_").unwrap_or(name)
}
