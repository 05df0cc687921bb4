//! Parks one driver until another thread wakes it.

use std::sync::atomic::Ordering::SeqCst;

use crate::runners::sync::{AtomicU8, Notify};

/// What the run queue records about a driver that may be parked. Changed only under the lock of the run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ParkState {
    /// Does not wait, or was woken without a slot.
    Awake = 0,
    /// The run queue lists the driver and will wake it.
    Waiting = 1,
    /// Was woken with a slot, to start an attempt.
    Starting = 2,
    /// Was woken with the slot that its attempt waited for.
    Resuming = 3,
}

#[derive(Default)]
pub(super) struct Parker {
    unparked: Notify,
    state: AtomicU8,
}

impl Parker {
    /// Returns the previous state.
    pub fn set(&self, state: ParkState) -> ParkState {
        match self.state.swap(state as u8, SeqCst) {
            1 => ParkState::Waiting,
            2 => ParkState::Starting,
            3 => ParkState::Resuming,
            _ => ParkState::Awake,
        }
    }

    /// Waits until the state is no longer [`ParkState::Waiting`].
    pub async fn park(&self) {
        // A wake-up that the driver did not wait for may have left a permit.
        while self.state.load(SeqCst) == ParkState::Waiting as u8 {
            self.unparked.notified().await;
        }
    }

    /// Call it after the lock of the run queue is released, because the woken driver needs it.
    pub fn unpark(&self) {
        self.unparked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::{ParkState, Parker};

    #[test]
    fn an_unused_wake_up_does_not_end_the_next_park() {
        let parker = Parker::default();
        parker.unpark();
        parker.set(ParkState::Waiting);
        assert!(parker.park().now_or_never().is_none());
        assert_eq!(parker.set(ParkState::Starting), ParkState::Waiting);
        parker.unpark();
        assert!(parker.park().now_or_never().is_some());
    }
}
