//! How workers sleep and are woken: none is missed, and none is woken for nothing.
//!
//! A worker announces its sleep, looks for work once more, and only then sleeps; whoever adds work
//! looks for sleepers afterwards. All of it is sequentially consistent, so one of the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where one worker sleeps.
#[derive(Default)]
pub(super) struct Bed {
    woken: Notify,
    /// Whether the worker is among the sleepers; changed only under their lock.
    listed: AtomicBool,
}

impl Bed {
    /// Sleeps until woken after the last announcement.
    pub async fn sleep(&self) {
        // A wake-up that came when the worker was already up again leaves a permit behind.
        loop {
            self.woken.notified().await;
            if !self.listed.load(SeqCst) {
                return;
            }
        }
    }
}

/// The sleeping workers of one pool; the last to fall asleep is the first to be woken, because its
/// memory is the warmest.
#[derive(Default)]
pub(super) struct Idle {
    sleepers: Mutex<Vec<Arc<Bed>>>,
    count: AtomicUsize,
}

impl Idle {
    /// Announces that a worker is about to sleep. It must look for work once more before it does.
    pub fn announce(&self, bed: &Arc<Bed>) {
        let mut sleepers = self.sleepers.lock();
        bed.listed.store(true, SeqCst);
        sleepers.push(bed.clone());
        self.count.store(sleepers.len(), SeqCst);
    }

    /// Takes an announcement back: the second look found work. The worker may have been woken
    /// meanwhile, so it must see to it that somebody else is when there is more work.
    pub fn withdraw(&self, bed: &Arc<Bed>) {
        let mut sleepers = self.sleepers.lock();
        if !bed.listed.swap(false, SeqCst) {
            return;
        }
        // From the end: it has only just been added.
        if let Some(at) = sleepers.iter().rposition(|sleeper| Arc::ptr_eq(sleeper, bed)) {
            sleepers.remove(at);
        }
        self.count.store(sleepers.len(), SeqCst);
    }

    /// Wakes up to `count` workers.
    pub fn wake(&self, count: usize) {
        if count == 0 || self.count.load(SeqCst) == 0 {
            return;
        }
        let mut sleepers = self.sleepers.lock();
        let keep = sleepers.len().saturating_sub(count);
        let woken = sleepers.split_off(keep);
        self.count.store(keep, SeqCst);
        for bed in &woken {
            bed.listed.store(false, SeqCst);
        }
        drop(sleepers);
        // Outside the lock, which the woken want.
        for bed in woken.into_iter().rev() {
            bed.woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_last_to_fall_asleep_is_woken_first_and_only_as_many_as_asked_for() {
        let idle = Idle::default();
        let beds: Vec<Arc<Bed>> = (0..3).map(|_| Arc::default()).collect();
        beds.iter().for_each(|bed| idle.announce(bed));
        idle.wake(2);
        let awake: Vec<_> = beds.iter().map(|bed| bed.sleep().now_or_never().is_some()).collect();
        assert_eq!(awake, [false, true, true]);
        idle.wake(usize::MAX);
        assert!(beds[0].sleep().now_or_never().is_some());
    }

    #[test]
    fn a_wake_up_that_came_too_late_does_not_count_for_the_next_sleep() {
        let idle = Idle::default();
        let bed: Arc<Bed> = Arc::default();
        idle.announce(&bed);
        idle.wake(1);
        idle.withdraw(&bed);
        idle.announce(&bed);
        assert!(bed.sleep().now_or_never().is_none());
        idle.wake(1);
        assert!(bed.sleep().now_or_never().is_some());
    }

    #[test]
    fn a_worker_that_found_work_is_no_longer_among_the_sleepers() {
        let idle = Idle::default();
        let (first, second): (Arc<Bed>, Arc<Bed>) = Default::default();
        idle.announce(&first);
        idle.announce(&second);
        idle.withdraw(&second);
        idle.wake(1);
        assert!(first.sleep().now_or_never().is_some());
    }
}
