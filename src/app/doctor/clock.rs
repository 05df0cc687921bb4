//! The system clock: the server's clock follows it, and across a restart it alone shows how much time has passed.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::model::{Clock, Timestamp};

use super::report::Finding;

/// 2026-01-01, before this program existed: an earlier time is wrong.
const EARLIEST: Timestamp = Timestamp(1_767_225_600_000_000);
/// How long the system clock is compared with the monotonic clock.
const MEASURE_TIME: Duration = Duration::from_millis(200);
/// The largest accepted difference between the two in that time.
const DRIFT_MAX: Duration = Duration::from_millis(20);
/// The largest accepted distance of a file's modification time in the future.
const AHEAD_MAX: Duration = Duration::from_secs(2);

const ADVICE: &str = "synchronize the clock by NTP (chrony or systemd-timesyncd); a pod uses the clock of its node";

/// The newest modification time of a file in the directory.
pub(super) fn newest(directory: &Path) -> Option<Timestamp> {
    let files = std::fs::read_dir(directory).ok()?.flatten();
    let times = files.filter_map(|file| file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    times.map(|time| Timestamp::ZERO.after(time)).max()
}

pub(super) async fn check(clock: &impl Clock, newest: Option<Timestamp>) -> Vec<Finding> {
    let (wall, started) = (clock.now(), tokio::time::Instant::now());
    tokio::time::sleep(MEASURE_TIME).await;
    let (passed, by_wall) = (started.elapsed(), clock.now().since(wall));
    let mut findings = vec![judge(wall, newest, passed.abs_diff(by_wall))];
    if !synchronized() {
        findings.push(Finding::warning("clock", "clock not synchronized").with_advice(ADVICE));
    }
    findings
}

fn judge(wall: Timestamp, newest: Option<Timestamp>, drift: Duration) -> Finding {
    if wall < EARLIEST {
        return Finding::failure("clock", format!("system time is {wall}, which is too early")).with_advice(ADVICE);
    }
    if let Some(newest) = newest
        && newest.since(wall) > AHEAD_MAX
    {
        let text = format!("system time is {wall}, but the store was written at {newest}: the clock was set back");
        return Finding::warning("clock", text).with_advice(ADVICE);
    }
    if drift > DRIFT_MAX {
        let text = format!("the clock jumped by {drift:.0?} during the check");
        return Finding::warning("clock", text).with_advice(ADVICE);
    }
    Finding::ok("clock", format!("system time is {wall}"))
}

/// Whether a time service keeps the kernel's clock synchronized.
#[expect(unsafe_code, reason = "rustix has no adjtimex")]
fn synchronized() -> bool {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the pointer is to a live local of the right type; all zero is a valid timex that changes nothing.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    // Not permitted in some sandboxes, which is no reason for a warning.
    state != libc::TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    #[test]
    fn a_clock_that_is_wrong_set_back_or_jumps_is_reported() {
        assert_eq!(judge(NOW, None, Duration::ZERO).state, State::Ok);
        assert_eq!(judge(NOW, Some(NOW), Duration::from_millis(1)).state, State::Ok);
        assert_eq!(judge(Timestamp(1), None, Duration::ZERO).state, State::Fail);
        assert_eq!(judge(NOW, Some(NOW.after(Duration::from_secs(60))), Duration::ZERO).state, State::Warn);
        assert_eq!(judge(NOW, None, Duration::from_secs(1)).state, State::Warn);
    }

    #[test]
    fn newest_returns_the_latest_modification_time() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(newest(directory.path()), None);
        std::fs::write(directory.path().join("journal.db"), "").unwrap();
        assert!(newest(directory.path()).unwrap() > EARLIEST);
    }
}
