//! Threads of low priority.

use std::io;
use std::panic::resume_unwind;
use std::thread::Builder;

use rustix::process::{getpriority_process, nice};
use tokio::sync::oneshot;

/// Added to the niceness of background threads. With all cores busy they still get about a fifth of one.
const BACKGROUND_NICENESS: i32 = 6;
/// The longest that Linux allows. A thread with the usual slice, of a few milliseconds, interrupts one with a longer slice as soon
/// as it wakes, instead of when that slice has ended.
const BACKGROUND_SLICE_NANOS: u64 = 100_000_000;

/// Lets threads that serve callers run before the calling thread when all cores are busy. A server without privileges cannot undo
/// it.
pub fn lower_priority() {
    // Where the system does not allow it, calls are slower under load and nothing else changes.
    let _ = nice(BACKGROUND_NICENESS);
    lengthen_slice();
}

/// Does work on a thread of its own, which has a lower priority. Work goes on if the result is no longer awaited.
///
/// # Panics
/// If the work does.
///
/// # Errors
/// If the system starts no thread.
pub async fn in_background<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    let thread = Builder::new().name(name.to_owned()).spawn(move || {
        lower_priority();
        // Fails only if nobody awaits it.
        let _ = sender.send(work());
    });
    let thread = thread.map_err(|error| io::Error::new(error.kind(), format!("failed to start a thread: {error}")))?;
    match result.await {
        Ok(result) => Ok(result),
        // The sender is dropped only by a panic.
        Err(_) => resume_unwind(thread.join().err().unwrap_or_else(|| Box::new("the work has no result"))),
    }
}

/// Has an effect since Linux 6.12.
#[expect(unsafe_code, reason = "rustix has no sched_setattr")]
fn lengthen_slice() {
    const SCHED_ATTR_SIZE_VER0: u32 = 48;
    const SCHED_FLAG_KEEP_POLICY: u64 = 8;
    let Ok(niceness) = getpriority_process(None) else { return };
    let attributes = libc::sched_attr {
        size: SCHED_ATTR_SIZE_VER0,
        sched_policy: 0,
        sched_flags: SCHED_FLAG_KEEP_POLICY,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: BACKGROUND_SLICE_NANOS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the call only reads the attributes, which have the size that they contain.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_thread_of_the_work_gets_a_lower_priority() {
        let before = getpriority_process(None).unwrap();
        let lowered = in_background("test", || getpriority_process(None).unwrap()).await;
        assert_eq!(lowered.unwrap(), (before + BACKGROUND_NICENESS).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    #[should_panic(expected = "of the work")]
    async fn a_panic_of_the_work_is_one_of_the_caller() {
        let _ = in_background("test", || panic!("of the work")).await;
    }
}
