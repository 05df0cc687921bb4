//! What watches have read from the journal and not yet returned.
//!
//! A watch that is behind the events in memory reads the journal. All watches share the memory and the threads for that, and callers
//! take turns. A watch that does not return what it has read loses it when others wait, and reads it again later.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::model::{Event, MemoryAccount, MemoryPart, Share};
use crate::store::Commit;

/// Memory of one read: the rows of the journal, and the events that are decoded from them.
const READ_BYTES: u64 = 4 << 20;
/// How long a watch keeps what it has read although others wait.
const HOLD: Duration = Duration::from_millis(100);
/// Memory of an event besides its payload, result and output.
const EVENT_BYTES: usize = 512;

/// All watches that catch up get a fourth of the threads, so that other calls do not wait for them.
const PART_OF_THREADS: usize = 4;
/// Events that a watch returns in one turn.
pub(super) const EVENTS_OF_TURN: u32 = 128;
/// Longer turns mean that the caller does not read.
const TURN_MAX: Duration = Duration::from_millis(1);
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

pub(super) struct JournalReads {
    memory: MemoryAccount,
    turns: Mutex<Turns>,
    readers: Arc<Semaphore>,
    /// In the order in which they were read.
    held: Mutex<VecDeque<(Instant, Weak<Slot>)>>,
}

type Slot = Mutex<Option<(Arc<Commit>, Share)>>;

/// Events that one watch has read. They are gone once another watch has taken their memory.
#[derive(Default)]
pub(super) struct ReadEvents {
    slot: Option<Arc<Slot>>,
}

impl ReadEvents {
    /// Whether any were read.
    pub fn is_some(&self) -> bool {
        self.slot.is_some()
    }
}

impl JournalReads {
    pub fn new(memory: MemoryAccount) -> Self {
        let threads = available_parallelism().map_or(1, NonZero::get);
        Self {
            memory,
            turns: Mutex::new(Turns { next: Instant::now() }),
            readers: Arc::new(Semaphore::new((threads / PART_OF_THREADS).max(1))),
            held: Mutex::default(),
        }
    }

    /// Waits for the next turn to return events, for a watch that needed this long for its last one.
    pub async fn turn(&self, last: Duration) {
        let now = Instant::now();
        let turn = self.turns.lock().take(now, last, Handle::current().metrics().num_workers());
        if turn < now + TIMER_RESOLUTION {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// Waits until few others read. The permit ends with the read.
    pub async fn reader(&self) -> Option<OwnedSemaphorePermit> {
        self.readers.clone().acquire_owned().await.ok()
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
        (ReadEvents { slot: Some(slot) }, commit)
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

/// The turns of all watches that catch up, one after the other in time.
struct Turns {
    next: Instant,
}

impl Turns {
    /// Returns when the turn of a watch begins. The next turn begins as much later as the last one of the watch took, and longer or
    /// shorter by the part of the threads.
    fn take(&mut self, now: Instant, last: Duration, threads: usize) -> Instant {
        let turn = self.next.max(now);
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        self.next = turn + last.min(TURN_MAX) * count(PART_OF_THREADS) / count(threads.max(1));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_that_catch_up_keep_a_fourth_of_the_threads_busy() {
        let (start, took) = (Instant::now(), Duration::from_micros(100));
        for (threads, apart) in [(1, 400), (2, 200), (4, 100), (16, 25)] {
            let mut turns = Turns { next: start };
            let taken: Vec<_> = (0..4).map(|_| turns.take(start, took, threads)).collect();
            let expected: Vec<_> = (0..4).map(|n| start + n * Duration::from_micros(apart)).collect();
            assert_eq!(taken, expected, "{threads} threads");
        }
    }

    #[test]
    fn a_turn_that_nobody_took_is_lost() {
        let start = Instant::now();
        let mut turns = Turns { next: start };
        let later = start + Duration::from_secs(1);
        assert_eq!(turns.take(later, Duration::ZERO, 4), later);
        assert_eq!(turns.take(later, Duration::ZERO, 4), later, "and others do not wait for a watch that took no time");
    }

    #[test]
    fn a_caller_that_reads_slowly_does_not_keep_others_waiting() {
        let start = Instant::now();
        let mut turns = Turns { next: start };
        turns.take(start, Duration::from_secs(1), 4);
        assert_eq!(turns.take(start, Duration::ZERO, 4), start + TURN_MAX);
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
            let mut held = events.slot.as_ref().unwrap().lock();
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
