//! What drives attempts, and the slot that it holds.

use std::sync::Arc;

use super::attempt::Attempt;
use super::parker::Parker;
use super::run_queue::{Next, RunQueue};

/// A thread, or a task of the runtime, that runs one attempt at a time. It holds a slot of the pool while it runs an
/// attempt, unless the attempt waits and has given the slot back.
pub(super) struct Driver {
    index: usize,
    queue: Arc<RunQueue>,
    parker: Arc<Parker>,
    holds_slot: bool,
}

impl Driver {
    /// A driver leaves when its number, `index`, is not below the number of slots.
    pub fn new(index: usize, queue: Arc<RunQueue>) -> Self {
        Self { index, queue, parker: Arc::default(), holds_slot: false }
    }

    /// Ends the present attempt, and takes the next one with a slot.
    pub fn next(&mut self) -> Next {
        let next = self.queue.next(self.index, &self.parker, self.holds_slot);
        self.holds_slot = matches!(next, Next::Start(_));
        next
    }

    /// Waits after [`Next::Park`].
    pub async fn park(&self) {
        self.parker.park().await;
    }

    /// Gives back the slot of the present attempt, which does not run until [`resume`](Self::resume) has returned.
    pub fn suspend(&mut self) {
        self.queue.release(&self.parker, std::mem::take(&mut self.holds_slot));
    }

    /// Waits for a slot for an attempt that was suspended. Slots go to higher priorities first, and to an attempt that
    /// has started before one that has not. May be dropped: then the attempt gets no slot.
    pub async fn resume(&mut self, attempt: &Attempt) {
        self.queue.resume(&self.parker, attempt);
        self.parker.park().await;
        self.holds_slot = true;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.queue.release(&self.parker, self.holds_slot);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::model::Priority;
    use crate::pool::Assignment;

    fn attempt(fence: u64, priority: Priority) -> Arc<Attempt> {
        Attempt::new(Assignment::sample(fence, "h", "t", priority, b"", false))
    }

    /// A queue with one slot, and drivers for it.
    fn drivers<const N: usize>() -> (Arc<RunQueue>, [Driver; N]) {
        let queue = Arc::new(RunQueue::new(2));
        queue.set_slots(1);
        (queue.clone(), std::array::from_fn(|_| Driver::new(0, queue.clone())))
    }

    fn start(driver: &mut Driver) -> Option<Arc<Attempt>> {
        match driver.next() {
            Next::Start(attempt) => Some(attempt),
            Next::Park | Next::Leave => None,
        }
    }

    fn fence(started: Option<&Arc<Attempt>>) -> Option<u64> {
        started.map(|attempt| attempt.ticket().fence)
    }

    #[test]
    fn while_an_attempt_waits_without_its_slot_another_one_starts() {
        let (queue, [mut first, mut second]) = drivers();
        queue.push(vec![attempt(1, Priority::Normal), attempt(2, Priority::Normal)], [false; 4]);
        let waiting = start(&mut first).unwrap();
        assert_eq!(fence(start(&mut second).as_ref()), None, "the slot is taken");
        first.suspend();
        assert!(second.park().now_or_never().is_some(), "the slot wakes the other driver");
        assert_eq!(fence(start(&mut second).as_ref()), Some(2));
        let mut resume = Box::pin(first.resume(&waiting));
        assert!(resume.as_mut().now_or_never().is_none(), "the slot is taken");
        assert_eq!(fence(start(&mut second).as_ref()), None);
        assert!(resume.now_or_never().is_some(), "the other attempt has ended");
    }

    #[test]
    fn a_higher_priority_starts_before_an_attempt_takes_its_slot_again_and_the_same_priority_after_it() {
        let (queue, [mut first, mut second]) = drivers();
        queue.push(vec![attempt(1, Priority::Normal)], [false; 4]);
        let waiting = start(&mut first).unwrap();
        first.suspend();
        queue.push(vec![attempt(2, Priority::High), attempt(3, Priority::Normal)], [false; 4]);
        assert_eq!(fence(start(&mut second).as_ref()), Some(2));
        let mut resume = Box::pin(first.resume(&waiting));
        assert!(resume.as_mut().now_or_never().is_none());
        assert_eq!(fence(start(&mut second).as_ref()), None, "the attempt that has started comes first");
        assert!(resume.now_or_never().is_some());
        drop(first);
        assert_eq!(fence(start(&mut second).as_ref()), Some(3));
    }

    #[test]
    fn slots_are_taken_again_by_priority_then_age() {
        let (queue, [mut first, mut second, mut third, mut last]) = drivers();
        let attempts = [(1, Priority::Low), (2, Priority::Normal), (3, Priority::Normal), (4, Priority::Low)];
        let mut waiting = Vec::new();
        for (driver, (fence, priority)) in [&mut first, &mut second, &mut third, &mut last].into_iter().zip(attempts) {
            queue.push(vec![attempt(fence, priority)], [false; 4]);
            waiting.push(start(driver).unwrap());
            if fence < 4 {
                driver.suspend();
            }
        }
        let mut resumes =
            [first.resume(&waiting[0]), third.resume(&waiting[2]), second.resume(&waiting[1])].map(Box::pin);
        assert!(resumes.iter_mut().all(|resume| resume.as_mut().now_or_never().is_none()));
        last.suspend();
        let ready = resumes.each_mut().map(|resume| resume.as_mut().now_or_never().is_some());
        assert_eq!(ready, [false, false, true], "the older one of the higher priority");
    }

    #[test]
    fn an_attempt_without_a_driver_for_it_keeps_no_slot_from_one_that_waits() {
        let (queue, [mut only]) = drivers();
        queue.push(vec![attempt(1, Priority::Normal)], [false; 4]);
        let waiting = start(&mut only).unwrap();
        only.suspend();
        queue.push(vec![attempt(2, Priority::Critical)], [false, false, false, true]);
        assert!(only.resume(&waiting).now_or_never().is_some());
    }

    #[test]
    fn a_slot_that_came_too_late_is_given_back() {
        let (queue, [mut first, mut second]) = drivers();
        queue.push(vec![attempt(1, Priority::Normal), attempt(2, Priority::Normal)], [false; 4]);
        let waiting = start(&mut first).unwrap();
        first.suspend();
        assert!(start(&mut second).is_some());
        let mut resume = Box::pin(first.resume(&waiting));
        assert!(resume.as_mut().now_or_never().is_none());
        second.suspend();
        // Its attempt was cancelled while the slot was on its way.
        drop(resume);
        queue.push(vec![attempt(3, Priority::Normal)], [false; 4]);
        assert_eq!(fence(start(&mut first).as_ref()), Some(3));
    }

    #[test]
    fn a_paused_queue_gives_slots_back_but_starts_nothing() {
        let (queue, [mut first, mut second]) = drivers();
        queue.push(vec![attempt(1, Priority::Normal), attempt(2, Priority::High)], [false; 4]);
        assert_eq!(fence(start(&mut first).as_ref()), Some(2));
        let waiting = attempt(2, Priority::High);
        first.suspend();
        queue.set_paused(true);
        assert_eq!(fence(start(&mut second).as_ref()), None);
        assert!(first.resume(&waiting).now_or_never().is_some());
    }
}
