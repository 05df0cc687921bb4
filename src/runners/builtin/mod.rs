//! Handlers that come with the server: they compute or wait, and need nothing outside of it.
//!
//! All of them obey `Run::stop` by themselves and answer [`StopMethod::Token`]. A payload that
//! cannot be read ends the attempt with INVALID_PAYLOAD and names field, value and limit.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{BoxFuture, Ended, Outcome, ProgressSink, Registry, Run, Runner, Stop};
use crate::model::spec::JSON;
use crate::model::{Failure, FailureReason, HandlerName, HandlerSpec, Payload, PoolName, RetryPolicy, StopMethod};

pub mod compute;
pub mod expression;
pub mod heavy;
pub mod io;
mod meter;

pub use compute::Compute;
pub use expression::Expression;
pub use heavy::Heavy;
pub use io::Io;

/// Shortest time between two reports of progress.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Registers `compute`, `io`, `expression` and `heavy`, all in the same pool.
pub fn register_all(registry: &mut Registry, pool: &PoolName) {
    let mut add = |name, description, payload, blocking, runner| {
        registry.register(spec(name, description, payload, blocking, pool.clone()), runner);
    };
    add("compute", compute::DESCRIPTION, compute::PAYLOAD, true, Arc::new(Compute) as Arc<dyn Runner>);
    add("io", io::DESCRIPTION, io::PAYLOAD, false, Arc::new(Io));
    add("expression", expression::DESCRIPTION, expression::PAYLOAD, true, Arc::new(Expression::default()));
    add("heavy", heavy::DESCRIPTION, heavy::PAYLOAD, true, Arc::new(Heavy));
}

fn spec(name: &str, description: &str, payload: &str, blocking: bool, pool: PoolName) -> HandlerSpec {
    HandlerSpec {
        name: HandlerName::parse(name).expect("the names of built-in handlers are valid"),
        runner: "builtin",
        description: description.to_owned(),
        payload_description: payload.to_owned(),
        pool,
        allowed_pools: Vec::new(),
        timeout: None,
        retry: RetryPolicy::default(),
        accepts_args: false,
        grace: Duration::from_secs(5),
        blocking,
    }
}

/// Why a built-in did not return a value.
enum Halt {
    /// It was told to end.
    Stopped,
    /// It failed.
    Failed(Failure),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs `work` inside the future's first poll, on the worker's own thread.
fn compute_now(run: Run, work: impl FnOnce(&Run) -> Result<String, Halt> + Send + 'static) -> BoxFuture<Outcome> {
    Box::pin(async move { ended(work(&run)).into() })
}

/// Runs an async `work`.
fn wait_for(work: impl Future<Output = Result<String, Halt>> + Send + 'static) -> BoxFuture<Outcome> {
    Box::pin(async move { ended(work.await).into() })
}

fn ended(result: Result<String, Halt>) -> Ended {
    // Shared, so that a result costs no second allocation for its type.
    static CONTENT_TYPE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(JSON));
    match result {
        Ok(json) => Ended::Completed(Payload { data: Bytes::from(json), content_type: Arc::clone(&CONTENT_TYPE) }),
        Err(Halt::Stopped) => Ended::Stopped(StopMethod::Token),
        Err(Halt::Failed(failure)) => Ended::Failed(failure),
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureReason::InvalidPayload, message)
}

/// Reads a JSON payload; serde names the field and the place.
fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(payload).map_err(|error| invalid(format!("payload: {error}")))
}

/// Checks one number against its range, both ends included.
fn in_range<N: Copy + PartialOrd + std::fmt::Display>(field: &str, value: N, least: N, most: N) -> Result<N, Failure> {
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(invalid(format!("payload: `{field}` is {value}, allowed are {least} to {most}")))
}

/// What a long loop calls every millisecond or so: looks at the stop, and reports progress.
struct Pace<'run> {
    stop: &'run Stop,
    progress: &'run ProgressSink,
    report_at: Instant,
}

impl<'run> Pace<'run> {
    fn new(run: &'run Run) -> Self {
        Self { stop: &run.stop, progress: &run.progress, report_at: Instant::now() + PROGRESS_INTERVAL }
    }

    /// Goes on, or says that the work has to end. `done` of `all` steps are behind it.
    fn step(&mut self, done: u64, all: u64) -> Result<(), Halt> {
        if self.stop.cause().is_some() {
            return Err(Halt::Stopped);
        }
        let now = Instant::now();
        if now >= self.report_at {
            self.report_at = now + PROGRESS_INTERVAL;
            #[expect(clippy::cast_precision_loss, reason = "a share for people")]
            (self.progress)(done as f32 / all.max(1) as f32, "");
        }
        Ok(())
    }
}
