//! How workers sleep and are woken: each at most once for each piece of work, none for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The sleeping workers of one pool; the last to fall asleep is the first to be woken.
#[derive(Default)]
pub(super) struct Idle {
    sleepers: Mutex<Vec<(usize, Arc<Notify>)>>,
    count: AtomicUsize,
}

impl Idle {
    /// Announces that a worker is about to sleep. It must look for work once more before it does:
    /// whoever adds work after that look finds it here.
    pub fn announce(&self, worker: usize, bed: &Arc<Notify>) {
        let mut sleepers = self.sleepers.lock();
        sleepers.push((worker, bed.clone()));
        self.count.store(sleepers.len(), Ordering::SeqCst);
        drop(sleepers);
        fence(Ordering::SeqCst);
    }

    /// Takes an announcement back: the second look found work. A wake-up that was sent meanwhile
    /// is passed on.
    pub fn withdraw(&self, worker: usize) {
        let mut sleepers = self.sleepers.lock();
        let before = sleepers.len();
        sleepers.retain(|(sleeper, _)| *sleeper != worker);
        self.count.store(sleepers.len(), Ordering::SeqCst);
        let was_woken = sleepers.len() == before;
        drop(sleepers);
        if was_woken {
            self.wake(1);
        }
    }

    /// Wakes up to `count` workers.
    pub fn wake(&self, count: usize) {
        fence(Ordering::SeqCst);
        if count == 0 || self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut sleepers = self.sleepers.lock();
        let keep = sleepers.len().saturating_sub(count);
        let woken = sleepers.split_off(keep);
        self.count.store(keep, Ordering::SeqCst);
        drop(sleepers);
        for (_, bed) in woken {
            bed.notify_one();
        }
    }
}
