//! Wall time: delays, retention and schedules hang on it, and a clock that jumps moves them.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::model::{Clock, Timestamp};

use super::report::Finding;

/// Nothing was built before it (2026-01-01), so a clock before it is wrong.
const EARLIEST: Timestamp = Timestamp(1_767_225_600_000_000);
/// How long it is compared with the monotonic clock.
const SPAN: Duration = Duration::from_millis(200);
/// How far the two may part in that time.
const DRIFT_MAX: Duration = Duration::from_millis(20);
/// How far a file's time may be ahead.
const AHEAD_MAX: Duration = Duration::from_secs(2);

const ADVICE: &str = "keep the clock by NTP (chrony or systemd-timesyncd); in a pod it is the node's";

/// The newest time of a file in the directory.
pub(super) fn newest(directory: &Path) -> Option<Timestamp> {
    let files = std::fs::read_dir(directory).ok()?.flatten();
    let times = files.filter_map(|file| file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    times.map(|time| Timestamp::ZERO.after(time)).max()
}

pub(super) async fn examine(clock: &impl Clock, newest: Option<Timestamp>) -> Vec<Finding> {
    let (wall, began) = (clock.now(), tokio::time::Instant::now());
    tokio::time::sleep(SPAN).await;
    let (passed, by_wall) = (began.elapsed(), clock.now().since(wall));
    let mut findings = vec![judge(wall, newest, passed.abs_diff(by_wall))];
    if !synchronized() {
        let text = "the kernel does not know that anything keeps it right";
        findings.push(Finding::doubtful("clock", text).advise(ADVICE));
    }
    findings
}

fn judge(wall: Timestamp, newest: Option<Timestamp>, drift: Duration) -> Finding {
    if wall < EARLIEST {
        return Finding::bad("clock", format!("it says {wall}, which is long past")).advise(ADVICE);
    }
    if let Some(newest) = newest
        && newest.since(wall) > AHEAD_MAX
    {
        let text = format!("it says {wall}, but the store was written at {newest}: it has gone back");
        return Finding::doubtful("clock", text).advise(ADVICE);
    }
    if drift > DRIFT_MAX {
        let text = format!("it jumped by {drift:.0?} while it was looked at");
        return Finding::doubtful("clock", text).advise(ADVICE);
    }
    Finding::well("clock", format!("it says {wall}"))
}

/// Whether the kernel was told lately how far off its clock is.
#[expect(unsafe_code, reason = "rustix has no adjtimex")]
fn synchronized() -> bool {
    let mut asked = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the pointer is to a live local of the right type; all zero is a valid timex that changes nothing.
    let state = unsafe { libc::adjtimex(asked.as_mut_ptr()) };
    // Where it may not be asked, nothing is known against it.
    state != libc::TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    #[test]
    fn a_clock_that_is_wrong_goes_back_or_jumps_is_told() {
        assert_eq!(judge(NOW, None, Duration::ZERO).state, State::Ok);
        assert_eq!(judge(NOW, Some(NOW), Duration::from_millis(1)).state, State::Ok);
        assert_eq!(judge(Timestamp(1), None, Duration::ZERO).state, State::Fail);
        assert_eq!(judge(NOW, Some(NOW.after(Duration::from_secs(60))), Duration::ZERO).state, State::Warn);
        assert_eq!(judge(NOW, None, Duration::from_secs(1)).state, State::Warn);
    }

    #[test]
    fn the_newest_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(newest(directory.path()), None);
        std::fs::write(directory.path().join("journal.db"), "").unwrap();
        assert!(newest(directory.path()).unwrap() > EARLIEST);
    }
}
