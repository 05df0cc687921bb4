//! The priority of threads.

use rustix::process::{getpriority_process, nice};

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
    use std::thread::Builder;

    use super::*;

    #[test]
    fn only_the_calling_thread_gets_a_lower_priority() {
        let before = getpriority_process(None).unwrap();
        let lowered = Builder::new().spawn(|| {
            lower_priority();
            getpriority_process(None).unwrap()
        });
        assert_eq!(lowered.unwrap().join().unwrap(), (before + BACKGROUND_NICENESS).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
