//! What watches have read from the journal and not yet returned.
//!
//! A watch that is behind the events in memory reads the journal. All watches share the memory for that, and callers take
//! turns. A watch that does not return what it has read loses it when others wait, and reads it again later.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::model::{Event, MemoryAccount, MemoryPart, Share};
use crate::store::Commit;

/// Memory of one read: the rows of the journal, and the events that are decoded from them.
const READ_BYTES: u64 = 4 << 20;
/// How long a watch keeps what it has read although others wait.
const HOLD: Duration = Duration::from_millis(100);
/// Memory of an event besides its payload, result and output.
const EVENT_BYTES: usize = 512;

/// Events that a watch returns before it pauses.
pub(super) const EVENTS_BETWEEN_PAUSES: u32 = 128;
/// Longer times between two pauses mean that the caller does not read.
const BUSY_MAX: Duration = Duration::from_millis(2);
/// Shorter pauses are added up, because a timer has a resolution of a millisecond.
const PAUSE_MIN: Duration = Duration::from_millis(5);

pub(super) struct JournalReads {
    memory: MemoryAccount,
    /// Has a clone for each watch that has read events.
    active: Arc<()>,
    /// In the order in which they were read.
    held: Mutex<VecDeque<(Instant, Weak<Slot>)>>,
}

type Slot = Mutex<Option<(Arc<Commit>, Share)>>;

/// Events that one watch has read. They are gone once another watch has taken their memory.
#[derive(Default)]
pub(super) struct ReadEvents {
    #[cfg_attr(not(test), expect(dead_code, reason = "keeps the events in memory"))]
    slot: Arc<Slot>,
    active: Option<Arc<()>>,
}

impl ReadEvents {
    /// Whether any were read.
    pub fn is_some(&self) -> bool {
        self.active.is_some()
    }
}

impl JournalReads {
    pub fn new(memory: MemoryAccount) -> Self {
        Self { memory, active: Arc::default(), held: Mutex::default() }
    }

    /// Lets the other tasks of the runtime run. Must be called by a watch that was busy for this long since its last pause:
    /// all watches that catch up together get half of the runtime's threads, so that other calls do not wait for them.
    /// `owed`: pauses of this watch that were too short to be made.
    pub async fn pause(&self, busy: Duration, owed: &mut Duration) {
        *owed += pause_after(busy, Arc::strong_count(&self.active) - 1, Handle::current().metrics().num_workers());
        if *owed < PAUSE_MIN {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(std::mem::take(owed)).await;
        }
    }

    /// Waits for the memory of one read, in turn with other callers.
    pub async fn reserve(&self, caller: &Arc<str>) -> Share {
        let share = self.memory.share_in_turn(MemoryPart::StreamReads, caller, READ_BYTES);
        tokio::pin!(share);
        loop {
            match tokio::time::timeout(HOLD, share.as_mut()).await {
                Ok(share) => return share,
                Err(_) => drop(self.take_oldest()),
            }
        }
    }

    /// Keeps the events of one read as long as the result lives, unless others need the memory. The second value refers to
    /// them.
    pub fn hold(&self, events: Vec<Event>, mut share: Share) -> (ReadEvents, Arc<Commit>) {
        share.resize(events.iter().map(|event| event.weight() + EVENT_BYTES).sum::<usize>() as u64);
        let commit = Arc::new(Commit::new(events, true));
        let slot = Arc::new(Mutex::new(Some((commit.clone(), share))));
        let mut held = self.held.lock();
        held.retain(|(_, slot)| slot.strong_count() > 0);
        held.push_back((Instant::now(), Arc::downgrade(&slot)));
        (ReadEvents { slot, active: Some(self.active.clone()) }, commit)
    }

    /// Takes the events that a watch has held longest, unless it has just read them.
    fn take_oldest(&self) -> Option<(Arc<Commit>, Share)> {
        let mut held = self.held.lock();
        while let Some((since, slot)) = held.front() {
            if since.elapsed() < HOLD {
                return None;
            }
            let slot = slot.upgrade();
            held.pop_front();
            let events = slot.and_then(|slot| slot.lock().take());
            if events.is_some() {
                return events;
            }
        }
        None
    }
}

/// How long one of `active` watches must pause for all of them to keep half of the threads busy.
fn pause_after(busy: Duration, active: usize, threads: usize) -> Duration {
    let share = (threads / 2).max(1);
    let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
    busy.min(BUSY_MAX) * count(active.saturating_sub(share)) / count(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_that_catch_up_keep_half_of_the_threads_busy() {
        let busy = Duration::from_millis(1);
        for (active, threads, factor) in [(1, 2, 0), (2, 2, 1), (9, 2, 8), (4, 8, 0), (12, 8, 2), (3, 1, 2)] {
            assert_eq!(pause_after(busy, active, threads), busy * factor, "{active} watches, {threads} threads");
        }
        assert_eq!(pause_after(Duration::from_secs(1), 3, 2), 2 * BUSY_MAX, "a caller that reads slowly");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_waits_takes_the_memory_of_the_one_that_has_held_its_events_longest() {
        let memory = MemoryAccount::new(|_| 3 * READ_BYTES);
        let reads = JournalReads::new(memory.clone());
        let caller = |name: &str| Arc::<str>::from(name);
        let hold = async |name| {
            let share = reads.reserve(&caller(name)).await;
            // As large as the whole read.
            let (events, commit) = reads.hold(Vec::new(), share);
            let mut held = events.slot.lock();
            held.as_mut().unwrap().1.resize(READ_BYTES);
            drop(held);
            (events, Arc::downgrade(&commit))
        };
        let (first, second, third) = (hold("a").await, hold("b").await, hold("c").await);
        let started = Instant::now();
        let fourth = hold("d").await;
        assert_eq!(started.elapsed(), HOLD);
        let is_alive = [&first, &second, &third, &fourth].map(|(_, commit)| commit.strong_count() > 0);
        assert_eq!(is_alive, [false, true, true, true]);
        drop(second);
        hold("a").await;
        assert_eq!(started.elapsed(), HOLD, "returned memory is free at once");
        assert!(memory.used(MemoryPart::StreamReads) <= 3 * READ_BYTES);
    }
}
