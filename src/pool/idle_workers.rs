//! Parking and waking of workers, without lost or unnecessary wake-ups.
//!
//! A worker registers as idle, looks for work once more, and only then parks; a thread that adds work
//! looks for idle workers afterwards. All accesses are sequentially consistent, so at least one of the two
//! sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Parks one worker.
#[derive(Default)]
pub(super) struct Parker {
    unparked: Notify,
    /// Whether the worker is in [`IdleWorkers`]; changed only under the lock of that list.
    registered: AtomicBool,
}

impl Parker {
    /// Waits until the worker is woken after its last registration.
    pub async fn park(&self) {
        // A wake-up of an earlier registration, which the worker did not need, may have left a permit.
        loop {
            self.unparked.notified().await;
            if !self.registered.load(SeqCst) {
                return;
            }
        }
    }
}

/// The idle workers of one pool. The most recently parked is woken first, because its caches are warm.
#[derive(Default)]
pub(super) struct IdleWorkers {
    parkers: Mutex<Vec<Arc<Parker>>>,
    count: AtomicUsize,
}

impl IdleWorkers {
    /// Registers a worker that is about to park. It must look for work once more before it does.
    pub fn register(&self, parker: &Arc<Parker>) {
        let mut parkers = self.parkers.lock();
        parker.registered.store(true, SeqCst);
        parkers.push(parker.clone());
        self.count.store(parkers.len(), SeqCst);
    }

    /// Removes a worker that found work after it registered. It may have been woken meanwhile, so it must
    /// wake another worker if there is more work.
    pub fn unregister(&self, parker: &Arc<Parker>) {
        let mut parkers = self.parkers.lock();
        if !parker.registered.swap(false, SeqCst) {
            return;
        }
        // Searched from the end, because it was added a moment ago.
        if let Some(at) = parkers.iter().rposition(|other| Arc::ptr_eq(other, parker)) {
            parkers.remove(at);
        }
        self.count.store(parkers.len(), SeqCst);
    }

    /// Wakes up to `count` workers.
    pub fn wake(&self, count: usize) {
        if count == 0 || self.count.load(SeqCst) == 0 {
            return;
        }
        let mut parkers = self.parkers.lock();
        let keep = parkers.len().saturating_sub(count);
        let woken = parkers.split_off(keep);
        self.count.store(keep, SeqCst);
        for parker in &woken {
            parker.registered.store(false, SeqCst);
        }
        drop(parkers);
        // After the lock is released, because the woken workers may need it.
        for parker in woken.into_iter().rev() {
            parker.unparked.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_woken(parker: &Parker) -> bool {
        parker.park().now_or_never().is_some()
    }

    #[test]
    fn wake_unparks_as_many_as_asked_and_the_latest_first() {
        let idle = IdleWorkers::default();
        let parkers: Vec<Arc<Parker>> = (0..3).map(|_| Arc::default()).collect();
        for parker in &parkers {
            idle.register(parker);
        }
        idle.wake(2);
        let woken: Vec<_> = parkers.iter().map(|parker| is_woken(parker)).collect();
        assert_eq!(woken, [false, true, true]);
        idle.wake(usize::MAX);
        assert!(is_woken(&parkers[0]));
    }

    #[test]
    fn an_unused_wake_up_does_not_end_the_next_park() {
        let idle = IdleWorkers::default();
        let parker: Arc<Parker> = Arc::default();
        idle.register(&parker);
        idle.wake(1);
        idle.unregister(&parker);
        idle.register(&parker);
        assert!(!is_woken(&parker));
        idle.wake(1);
        assert!(is_woken(&parker));
    }

    #[test]
    fn an_unregistered_worker_is_not_woken() {
        let idle = IdleWorkers::default();
        let (first, second): (Arc<Parker>, Arc<Parker>) = Default::default();
        idle.register(&first);
        idle.register(&second);
        idle.unregister(&second);
        idle.wake(1);
        assert!(is_woken(&first));
    }
}
