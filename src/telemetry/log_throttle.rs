//! Keeps a warning that repeats itself from burying the rest of the log.

use std::cell::Cell;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The span over which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// What becomes of tasks is told as information as well, and as often as tasks end.
const OF_TASKS: &str = "lineshaft::pool";
/// Leaves nothing out that it does not leave out itself.
const AUDIT: &str = "audit";

/// Lets so many lines of one place in the program pass within ten seconds.
#[derive(Debug)]
pub(super) struct LogThrottle {
    most: u32,
    places: Mutex<HashMap<Identifier, Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

thread_local! {
    static LEFT_OUT: Cell<u64> = const { Cell::new(0) };
}

/// Lines like the one that is being written that were left out before it.
pub(super) fn left_out() -> u64 {
    LEFT_OUT.get()
}

impl LogThrottle {
    /// 0: every line passes.
    pub fn new(most: u32) -> Self {
        Self { most, places: Mutex::default() }
    }

    fn passes(&self, place: Identifier, now: Instant) -> bool {
        let mut places = self.places.lock();
        let window = places.entry(place).or_insert(Window { since: now, lines: 0, left_out: 0 });
        if now.duration_since(window.since) >= WINDOW {
            (window.since, window.lines) = (now, 0);
        }
        if window.lines >= self.most {
            window.left_out += 1;
            return false;
        }
        window.lines += 1;
        LEFT_OUT.set(std::mem::take(&mut window.left_out));
        true
    }
}

impl<S: Subscriber> Layer<S> for LogThrottle {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        LEFT_OUT.set(0);
        let metadata = event.metadata();
        let bound = match *metadata.level() {
            Level::ERROR | Level::WARN => metadata.target() != AUDIT,
            Level::INFO => metadata.target().starts_with(OF_TASKS),
            // Whoever wants the details gets them all.
            _ => false,
        };
        self.most == 0 || !bound || self.passes(metadata.callsite(), Instant::now())
    }
}
