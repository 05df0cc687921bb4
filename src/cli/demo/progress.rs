//! Progress of the demo: bars on a terminal, lines otherwise.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::event_log::{EventLog, is_terminal};
use super::plan::Plan;
use crate::cli::format::{stop_method, task_state};
use crate::cli::output;
use crate::cli::server_process::{Result, ServerProcess};
use crate::cli::time::{format_duration, to_proto, unix_micros};
use crate::proto::v1::pool_service_client::PoolServiceClient;
use crate::proto::v1::{CancelReceipt, PoolMetrics, StopMethod, StreamPoolMetricsRequest, TaskEvent, TaskState};

/// Intervals of the pool metrics with bars and with lines.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Progress {
    bars: Option<Bars>,
    pools: JoinHandle<()>,
}

#[derive(Clone)]
struct Bars {
    all: MultiProgress,
    tasks: ProgressBar,
}

impl Progress {
    /// Starts to show the metrics of the pools, and how many of the tasks have ended.
    pub async fn new(server: &ServerProcess, task_count: usize) -> Result<Self> {
        let bars = std::io::stderr().is_terminal().then(|| Bars::new(task_count));
        let interval = Some(to_proto(if bars.is_some() { BAR_INTERVAL } else { LINE_INTERVAL }));
        let mut client = PoolServiceClient::new(server.connect().await?);
        let request = StreamPoolMetricsRequest { interval, ..StreamPoolMetricsRequest::default() };
        let mut samples = client.stream_pool_metrics(request).await?.into_inner();
        let all = bars.as_ref().map(|bars| bars.all.clone());
        let pools = tokio::spawn(async move {
            let mut lines = BTreeMap::new();
            while let Ok(Some(sample)) = samples.message().await {
                for pool in &sample.pools {
                    show_pool(all.as_ref(), &mut lines, pool);
                }
            }
        });
        Ok(Self { bars, pools })
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => drop(bars.all.println(text)),
            None => output::stdout_line(text),
        }
    }

    /// Counts an event, and prints it unless its task is one that completes.
    pub fn event(&self, event: &TaskEvent, plan: &Plan, log: &EventLog) {
        if let Some(bars) = &self.bars
            && is_terminal(event.state())
        {
            bars.tasks.inc(1);
        }
        let Some(planned) = log.index(&event.task_id).map(|index| &plan.tasks[index]) else { return };
        if planned.completes() && event.failure.is_none() {
            return;
        }
        let from = match event.previous_state() {
            TaskState::Unspecified => String::new(),
            state => format!("{} → ", task_state(state.into())),
        };
        let (handler, to, notes) = (&event.handler, task_state(event.state), notes(event));
        self.line(&format!("  {handler:<10} {from}{to}{notes}"));
    }

    /// Stops the updates and removes the bars.
    pub fn close(&self) {
        self.pools.abort();
        if let Some(bars) = &self.bars {
            let _ = bars.all.clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.close();
    }
}

impl Bars {
    fn new(task_count: usize) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("  tasks      [{bar:40}] {pos}/{len} {elapsed}");
        let bar =
            ProgressBar::new(task_count as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { tasks: all.add(bar), all }
    }
}

/// Updates the pool's line on a terminal; without one, prints a line if the values have changed.
fn show_pool(all: Option<&MultiProgress>, lines: &mut BTreeMap<String, (ProgressBar, String)>, pool: &PoolMetrics) {
    let PoolMetrics { pool: name, busy, size, queued, waiting, completed, failed, cancelled, .. } = pool;
    let text = format!(
        "  {name:<10} {busy}/{size} busy  {queued:>3} queued  {waiting} waiting  \
         {completed:>3} completed  {failed} failed  {cancelled} cancelled"
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
            output::stdout_line(&text);
            *last = text;
        }
        None => {}
    }
}

fn notes(event: &TaskEvent) -> String {
    let attempt = (event.attempt > 0).then(|| format!("attempt {}", event.attempt));
    let failure = event.failure.as_ref().map(|failure| failure.message.clone());
    let cancel = event.cancel.as_ref().map(cancel_note);
    let notes = [attempt, failure, cancel].into_iter().flatten();
    notes.fold(String::new(), |line, note| line + "  " + &note)
}

fn cancel_note(receipt: &CancelReceipt) -> String {
    if receipt.method() == StopMethod::Unspecified {
        return "asked to stop".to_owned();
    }
    let micros = unix_micros(receipt.stopped_at.as_ref()) - unix_micros(receipt.requested_at.as_ref());
    let elapsed = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    format!("stopped by {} after {}", stop_method(receipt.method), format_duration(elapsed))
}
