//! The CPU time of a thread, cheap enough to ask before and after a guest that runs for some microseconds.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a reading is good for: meanwhile the thread is taken to use a core all the time. A reading asks the kernel, which
/// takes a tenth of the time of a short guest. This is also how far an answer can be off.
const READING_LASTS: Duration = Duration::from_micros(100);

/// The CPU time that the present thread had at a time.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    cpu_time: Duration,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// CPU time of the present thread since it was started, give or take [`READING_LASTS`].
pub(super) fn thread_cpu_time() -> Duration {
    let at = Instant::now();
    let last = LAST.get().map(|last| (last.cpu_time, at.saturating_duration_since(last.at)));
    if let Some((cpu_time, since)) = last.filter(|(_, since)| *since < READING_LASTS) {
        return cpu_time + since;
    }
    let cpu_time = clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default();
    LAST.set(Some(Reading { at, cpu_time }));
    cpu_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_uses_no_cpu_time() {
        let (before, began) = (thread_cpu_time(), Instant::now());
        while began.elapsed() < 10 * READING_LASTS {
            std::thread::sleep(READING_LASTS / 10);
            thread_cpu_time();
        }
        std::thread::sleep(100 * READING_LASTS);
        let used = thread_cpu_time().saturating_sub(before);
        assert!(used < began.elapsed() / 2, "{used:?} of {:?}", began.elapsed());
    }

    #[test]
    fn a_thread_that_works_uses_cpu_time() {
        let before = thread_cpu_time();
        while thread_cpu_time().saturating_sub(before) < 10 * READING_LASTS {
            std::hint::spin_loop();
        }
    }
}
