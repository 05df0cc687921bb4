//! What watches have read from the journal and not yet returned.
//!
//! A watch that is behind the events in memory reads the journal. All watches share the memory for that, and callers take
//! turns. A watch that does not return what it has read loses it when others wait, and reads it again later.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::{Event, MemoryAccount, MemoryPart, Share};
use crate::store::Commit;

/// Memory of one read: the rows of the journal, and the events that are decoded from them.
const READ_BYTES: u64 = 4 << 20;
/// How long a watch keeps what it has read although others wait.
const HOLD: Duration = Duration::from_millis(100);
/// Memory of an event besides its payload, result and output.
const EVENT_BYTES: usize = 512;

pub(super) struct JournalReads {
    memory: MemoryAccount,
    /// In the order in which they were read.
    held: Mutex<VecDeque<(Instant, Weak<Slot>)>>,
}

type Slot = Mutex<Option<(Arc<Commit>, Share)>>;

/// Events that one watch has read. They are gone once another watch has taken their memory.
#[derive(Default)]
pub(super) struct ReadEvents {
    #[cfg_attr(not(test), expect(dead_code, reason = "keeps the events in memory"))]
    slot: Arc<Slot>,
}

impl JournalReads {
    pub fn new(memory: MemoryAccount) -> Self {
        Self { memory, held: Mutex::default() }
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
        (ReadEvents { slot }, commit)
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

#[cfg(test)]
mod tests {
    use super::*;

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
