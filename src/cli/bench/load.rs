//! The load generator: slots that call again as soon as they are answered, counted inside a window.

use std::future::Future;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::Status;

use crate::cli::server_process::Result;

/// Time before the window in which the load is already there: connections and caches get warm.
const WARM_UP: Duration = Duration::from_millis(300);
/// Longest latency that is told apart, in microseconds.
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// The time that counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    /// Opens after the warm-up and is `span` long.
    pub fn soon(span: Duration) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + span }
    }

    /// Whether something that happens now counts.
    pub fn is_open(&self) -> bool {
        let now = Instant::now();
        self.begin <= now && now < self.end
    }

    /// Whether nothing counts any more.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// How often per second, for an amount that was counted while it was open.
    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    pub fn rate(&self, amount: u64) -> f64 {
        amount as f64 / (self.end - self.begin).as_secs_f64()
    }
}

/// What was counted.
#[derive(Debug)]
pub struct Tally {
    /// Tasks that were answered.
    pub count: u64,
    /// From call to answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let latency = Histogram::new_with_max(LATENCY_MAX_MICROS, 2).expect("the bounds of the histogram are valid");
        Self { count: 0, latency }
    }

    /// Counts `amount` that took `span`.
    pub fn add(&mut self, amount: u64, span: Duration) {
        self.count += amount;
        self.latency.saturating_record(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }
}

/// Milliseconds at a quantile of a histogram of microseconds.
#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 microseconds")]
pub fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1_000.0
}

/// Runs every slot until the window is over. A slot's call answers how many tasks it stood for.
pub async fn closed_loop<F, Fut>(window: Window, slots: Vec<F>) -> Result<Tally>
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<u64, Status>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for mut call in slots {
        running.spawn(async move {
            let mut tally = Tally::new();
            while !window.is_over() {
                let began = Instant::now();
                let amount = call().await?;
                if window.is_open() {
                    tally.add(amount, began.elapsed());
                }
            }
            Ok::<_, Status>(tally)
        });
    }
    let mut total = Tally::new();
    while let Some(tally) = running.join_next().await {
        let tally = tally??;
        total.count += tally.count;
        total.latency.add(&tally.latency)?;
    }
    Ok(total)
}
