//! Limits repeated warnings, so that they do not bury the rest of the log.

use std::cell::Cell;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::export::rejections::Rejections;

/// Lines are counted within this duration.
const WINDOW: Duration = Duration::from_secs(10);
/// The pool logs results of tasks at level INFO, as often as tasks end.
const POOL: &str = "lineshaft::pool";
/// The audit log has a separate limit.
const AUDIT: &str = "audit";

/// Name of the event for an internal error whose id a caller has got, so it is always logged.
pub const INCIDENT: &str = "incident";

/// Limits the lines of each log statement within ten seconds.
#[derive(Debug)]
pub(super) struct LogThrottle {
    lines_max: u32,
    statements: Mutex<HashMap<Identifier, Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    omitted: u64,
}

thread_local! {
    static OMITTED: Cell<u64> = const { Cell::new(0) };
}

/// Lines of the current statement that were omitted before the line that is being written.
pub(super) fn omitted() -> u64 {
    OMITTED.get()
}

impl LogThrottle {
    /// 0: no limit.
    pub fn new(lines_max: u32) -> Self {
        Self { lines_max, statements: Mutex::default() }
    }

    fn passes(&self, statement: Identifier, now: Instant) -> bool {
        let mut statements = self.statements.lock();
        let window = statements.entry(statement).or_insert(Window { since: now, lines: 0, omitted: 0 });
        if now.duration_since(window.since) >= WINDOW {
            (window.since, window.lines) = (now, 0);
        }
        if window.lines >= self.lines_max {
            window.omitted += 1;
            return false;
        }
        window.lines += 1;
        OMITTED.set(std::mem::take(&mut window.omitted));
        true
    }
}

impl<S: Subscriber> Layer<S> for LogThrottle {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        OMITTED.set(0);
        let metadata = event.metadata();
        let limited = match *metadata.level() {
            // Rejections are counted, so none may be left out.
            Level::ERROR | Level::WARN => {
                metadata.target() != AUDIT && metadata.name() != INCIDENT && !Rejections::are_in(metadata)
            }
            Level::INFO => metadata.target().starts_with(POOL),
            // Details are enabled on purpose.
            _ => false,
        };
        self.lines_max == 0 || !limited || self.passes(metadata.callsite(), Instant::now())
    }
}
