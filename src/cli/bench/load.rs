//! The load generator: concurrent callers that call again as soon as they get a response, and what is counted of a load.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tonic::Status;

use super::server::Server;
use super::settings::Settings;
use crate::cli::server_process::Result;

/// Load before the window opens, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// The time of a load: a warm-up, a burst in which responses are counted, and what follows.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    start: Instant,
    burst_end: Instant,
    end: Instant,
}

impl Window {
    /// Opens after the warm-up, and closes with the load.
    pub fn after_warm_up(duration: Duration) -> Self {
        let start = Instant::now() + WARM_UP;
        Self { start, burst_end: start + duration, end: start + duration }
    }

    /// Closes before the load ends.
    pub fn of_burst(settings: &Settings) -> Self {
        let window = Self::after_warm_up(settings.duration);
        Self { burst_end: window.start + settings.burst(), ..window }
    }

    pub fn is_open(&self) -> bool {
        let now = Instant::now();
        self.start <= now && now < self.burst_end
    }

    pub fn has_ended(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Amount per second while the window was open.
    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    pub fn rate(&self, amount: u64) -> f64 {
        amount as f64 / (self.burst_end - self.start).as_secs_f64()
    }
}

#[derive(Debug)]
pub struct Samples {
    /// Number of tasks whose latency was recorded.
    pub count: u64,
    /// Number of all tasks.
    pub total: u64,
    /// Latency of each call in microseconds.
    latency: Histogram<u64>,
}

impl Samples {
    pub fn new() -> Self {
        let latency = Histogram::new_with_max(LATENCY_MAX_MICROS, 2).expect("the bounds of the histogram are valid");
        Self { count: 0, total: 0, latency }
    }

    /// Records a call for a number of tasks.
    pub fn record(&mut self, tasks: u64, latency: Duration) {
        self.count += tasks;
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.count += other.count;
        self.total += other.total;
        Ok(self.latency.add(&other.latency)?)
    }

    /// Latency in milliseconds at a quantile from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 microseconds")]
    pub fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

/// What a load cost and how long it took, until the server had nothing left to do.
#[derive(Clone, Copy, Debug)]
pub struct Sustained {
    /// Tasks per second, from the first submission until then.
    pub rate: f64,
    /// CPU time of the server per task, in microseconds.
    pub server_cpu: f64,
    /// CPU time of the load generator per task, in microseconds.
    pub client_cpu: f64,
}

/// Measures a load as a whole.
pub struct Meter<'a> {
    server: &'a Server,
    started: Instant,
    server_cpu: Duration,
    client_cpu: Duration,
}

impl<'a> Meter<'a> {
    /// Must be called before the first submission.
    pub fn start(server: &'a Server) -> Result<Self> {
        let (server_cpu, client_cpu) = (server.process.cpu_time()?, own_cpu_time());
        Ok(Self { server, started: Instant::now(), server_cpu, client_cpu })
    }

    /// Waits until the server has nothing left to do.
    pub async fn finish(self, tasks: u64) -> Result<Sustained> {
        // Before the calls that wait.
        let client_cpu = own_cpu_time().saturating_sub(self.client_cpu);
        let settled = self.server.settled().await?;
        let server_cpu = self.server.process.cpu_time()?.saturating_sub(self.server_cpu);
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let tasks = tasks.max(1) as f64;
        Ok(Sustained {
            rate: tasks / (settled - self.started).as_secs_f64(),
            server_cpu: server_cpu.as_secs_f64() * 1e6 / tasks,
            client_cpu: client_cpu.as_secs_f64() * 1e6 / tasks,
        })
    }
}

/// CPU time of this process.
fn own_cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// Runs all callers until the load ends, or until there were about `most` tasks. A call returns the number of tasks that it
/// stands for.
pub async fn closed_loop<F, Fut>(window: Window, most: u64, callers: Vec<F>) -> Result<Samples>
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<u64, Status>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let sent = Arc::new(AtomicU64::new(0));
    for mut call in callers {
        let sent = Arc::clone(&sent);
        running.spawn(async move {
            let mut samples = Samples::new();
            while !window.has_ended() && sent.load(Ordering::Relaxed) < most {
                let started = Instant::now();
                let tasks = call().await?;
                samples.total += tasks;
                sent.fetch_add(tasks, Ordering::Relaxed);
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
