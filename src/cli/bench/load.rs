//! The load generator: concurrent callers that call again as soon as they get a response, and the measurement window.

use std::future::Future;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::Status;

use crate::cli::server_process::Result;

/// Load before the window opens, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// The time in which responses are counted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    start: Instant,
    end: Instant,
}

impl Window {
    /// A window that opens after the warm-up.
    pub fn after_warm_up(duration: Duration) -> Self {
        let start = Instant::now() + WARM_UP;
        Self { start, end: start + duration }
    }

    pub fn is_open(&self) -> bool {
        let now = Instant::now();
        self.start <= now && now < self.end
    }

    pub fn has_ended(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Amount per second.
    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    pub fn rate(&self, amount: u64) -> f64 {
        amount as f64 / (self.end - self.start).as_secs_f64()
    }
}

#[derive(Debug)]
pub struct Samples {
    /// Number of tasks.
    pub count: u64,
    /// Latency of each call in microseconds.
    latency: Histogram<u64>,
}

impl Samples {
    pub fn new() -> Self {
        let latency = Histogram::new_with_max(LATENCY_MAX_MICROS, 2).expect("the bounds of the histogram are valid");
        Self { count: 0, latency }
    }

    /// Records a call for a number of tasks.
    pub fn record(&mut self, tasks: u64, latency: Duration) {
        self.count += tasks;
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.count += other.count;
        Ok(self.latency.add(&other.latency)?)
    }

    /// Latency in milliseconds at a quantile from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 microseconds")]
    pub fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

/// Runs all callers until the window ends. A call returns the number of tasks that it stands for.
pub async fn closed_loop<F, Fut>(window: Window, callers: Vec<F>) -> Result<Samples>
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<u64, Status>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for mut call in callers {
        running.spawn(async move {
            let mut samples = Samples::new();
            while !window.has_ended() {
                let started = Instant::now();
                let tasks = call().await?;
                if window.is_open() {
                    samples.record(tasks, started.elapsed());
                }
            }
            Ok::<_, Status>(samples)
        });
    }
    let mut total = Samples::new();
    while let Some(samples) = running.join_next().await {
        total.merge(&samples??)?;
    }
    Ok(total)
}
