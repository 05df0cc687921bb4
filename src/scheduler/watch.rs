//! A watch: a filter and a position in the sequence of events.
//!
//! It holds no events that it has not returned: it refers to commits that the hub keeps, or that it has read from the
//! journal. If they have gone meanwhile, it reads them again. So a caller that does not take the events costs nothing.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{Event, ResumeToken, Revision, TaskChange, TaskEvent, TaskFilter};
use crate::store::{Commit, Journal, StoreError};
use crate::threads::in_background;

use super::hub::{Hub, STEP_EVENTS};
use super::journal_reads::{EVENTS_OF_TURN, ReadEvents};
use super::refusal::{Internal, Refusal, RevisionCompacted, RevisionInFuture, WatchDrained};
use super::watch_index::Unseen;

pub struct Watch {
    hub: Arc<Hub>,
    filter: Arc<TaskFilter>,
    /// Whose turn it is when the watch reads the journal.
    caller: Arc<str>,
    reached: Revision,
    /// The commits up to this revision have to be filtered, and later ones if the index or the hub announces them.
    announced: Revision,
    /// If the index has the watch. Otherwise it filters every commit.
    unseen: Option<Arc<Unseen>>,
    step: Step,
    durable: watch::Receiver<Revision>,
    turn: Turn,
}

/// The last turn of a watch that catches up.
struct Turn {
    began: Instant,
    returned: u32,
}

/// Matching events after [`Watch::reached`] that were found and not yet returned.
#[derive(Default)]
struct Step {
    found: VecDeque<(Weak<Commit>, usize)>,
    /// The last event that was filtered.
    end: Revision,
    /// Of a step that was read from the journal.
    read: ReadEvents,
}

/// A durable event. Keeps its commit in memory: convert it before waiting for anything.
#[derive(Clone, Debug)]
pub struct EventRef {
    commit: Arc<Commit>,
    index: usize,
}

impl Deref for EventRef {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.commit.events[self.index]
    }
}

impl Watch {
    pub(super) fn new(
        hub: Arc<Hub>,
        filter: TaskFilter,
        after: Option<Revision>,
        caller: Arc<str>,
    ) -> Result<Self, Refusal> {
        let (unseen, newest) = hub.register(&filter);
        let reached = after.unwrap_or(newest);
        let durable = hub.subscribe();
        hub.meter.open.fetch_add(1, Ordering::Relaxed);
        let watch = Self {
            hub,
            filter: Arc::new(filter),
            caller,
            reached,
            announced: newest,
            unseen,
            step: Step::default(),
            durable,
            turn: Turn { began: Instant::now(), returned: 0 },
        };
        if reached > newest {
            return Err(RevisionInFuture { wanted: reached, newest }.into());
        }
        Ok(watch)
    }

    /// All matching events up to this revision were returned.
    pub fn reached(&self) -> Revision {
        self.reached
    }

    /// Token for a watch that continues after a revision.
    pub fn resume_token(&self, revision: Revision) -> ResumeToken {
        self.hub.resume_token(revision)
    }

    /// Waits for the next matching event after [`Watch::reached`]; `None` if there were new events and none of them
    /// matches.
    ///
    /// # Errors
    /// [`WatchDrained`] when the server shuts down; [`RevisionCompacted`] if the events were deleted.
    pub async fn next(&mut self) -> Result<Option<EventRef>, Refusal> {
        self.next_until(None).await
    }

    /// As [`Watch::next`]; also `None` when there is no new event at the deadline. Events that the index keeps from the
    /// watch move [`Watch::reached`] at the latest then.
    ///
    /// # Errors
    /// Those of [`Watch::next`].
    pub async fn next_until(&mut self, deadline: Option<Instant>) -> Result<Option<EventRef>, Refusal> {
        let mut is_due = false;
        loop {
            if self.hub.draining.is_cancelled() {
                return Err(self.drained().into());
            }
            if self.turn.returned == EVENTS_OF_TURN {
                self.hub.reads.turn(self.turn.began.elapsed()).await;
                self.turn = Turn { began: Instant::now(), returned: 0 };
            }
            // Events that were found are returned without waiting for anything.
            tokio::task::coop::consume_budget().await;
            let catches_up = self.step.read.is_some();
            if let Some(event) = self.take_found() {
                self.turn.returned += u32::from(catches_up);
                self.hub.meter.events.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(event));
            }
            let newest = *self.durable.borrow_and_update();
            self.look(newest);
            if self.reached < self.announced.min(newest) {
                self.find(newest).await?;
                if self.step.found.is_empty() {
                    self.reached = self.step.end;
                    return Ok(None);
                }
                continue;
            }
            if self.reached < newest || is_due {
                self.reached = self.reached.max(newest);
                return Ok(None);
            }
            // What was announced already may be durable at the next change.
            let unseen = self.unseen.as_deref().filter(|_| self.announced <= newest);
            tokio::select! {
                biased;
                () = announcement(unseen, &mut self.durable) => {}
                () = self.hub.draining.cancelled() => {}
                () = reach(deadline) => is_due = true,
            }
        }
    }

    /// Takes what was announced. Nothing else up to `newest` matches.
    fn look(&mut self, newest: Revision) {
        match &self.unseen {
            None => self.announced = newest,
            Some(unseen) => {
                let Some((first, last)) = unseen.take() else { return };
                if self.reached >= self.announced {
                    self.reached = self.reached.max(Revision(first.0.saturating_sub(1)));
                }
                self.announced = self.announced.max(last);
            }
        }
    }

    fn drained(&self) -> WatchDrained {
        WatchDrained { resume: self.resume_token(self.reached) }
    }

    /// The next event of the step. If it is no longer in memory, the step ends and is found again.
    fn take_found(&mut self) -> Option<EventRef> {
        let (commit, index) = self.step.found.pop_front()?;
        let Some(commit) = commit.upgrade() else {
            self.step = Step::default();
            return None;
        };
        let event = EventRef { commit, index };
        self.reached = event.revision();
        if self.step.found.is_empty() {
            self.reached = self.step.end;
            self.step = Step::default();
        }
        Some(event)
    }

    /// Finds the matching events among some of those after [`Watch::reached`], up to the newest durable revision: a caller that
    /// asks for the task of an event finds it as it is since then.
    async fn find(&mut self, newest: Revision) -> Result<(), Refusal> {
        self.step = match self.hub.recent(self.reached) {
            Some(commits) => {
                let mut step = Step { end: self.reached, ..Step::default() };
                for commit in commits.iter().take_while(|commit| commit.last() <= newest) {
                    self.filter(commit, &mut step);
                }
                step
            }
            None => self.read_journal(newest).await?,
        };
        Ok(())
    }

    fn filter(&self, commit: &Arc<Commit>, step: &mut Step) {
        for (index, event) in commit.events.iter().enumerate() {
            if event.revision() > self.reached && matches(&self.filter, event) {
                step.found.push_back((Arc::downgrade(commit), index));
            }
        }
        step.end = step.end.max(commit.last());
    }

    async fn read_journal(&self, newest: Revision) -> Result<Step, Refusal> {
        let share = self.hub.reads.reserve(&self.caller).await;
        let reader = self.hub.reads.reader().await;
        self.hub.meter.catch_ups.fetch_add(1, Ordering::Relaxed);
        let (journal, after) = (self.hub.journal.clone(), self.reached);
        let filter = self.filter.clone();
        // The share moves along: the memory is in use until the read has ended, also if the watch has ended before.
        let read = in_background("journal-read", move || {
            let _reader = reader;
            (read_matching(&*journal, after, newest, &filter), share)
        });
        let (read, share) = read.await.map_err(Internal::from_error)?;
        let (events, end) = match read {
            Ok(read) => read,
            Err(StoreError::Compacted { oldest }) => return Err(RevisionCompacted { oldest }.into()),
            Err(error) => return Err(Refusal::of_read(&error)),
        };
        let mut step = Step { end, ..Step::default() };
        if !events.is_empty() {
            let (read, commit) = self.hub.reads.hold(events, share);
            step.read = read;
            step.found = (0..commit.events.len()).map(|index| (Arc::downgrade(&commit), index)).collect();
        }
        Ok(step)
    }
}

/// Reads events after a revision, up to the newest durable one. Returns those that match, and the revision of the last event.
fn read_matching(
    journal: &dyn Journal,
    after: Revision,
    newest: Revision,
    filter: &TaskFilter,
) -> Result<(Vec<Event>, Revision), StoreError> {
    let mut events = journal.read(after, STEP_EVENTS)?;
    events.truncate(events.partition_point(|event| event.revision() <= newest));
    let end = events.last().map_or(after, Event::revision);
    events.retain(|event| matches(filter, event));
    events.iter_mut().for_each(drop_payload);
    Ok((events, end))
}

fn matches(filter: &TaskFilter, event: &Event) -> bool {
    event.task().is_some_and(|event| filter.matches_event(event))
}

/// Watchers need no payloads. Events in memory share theirs with the scheduler, but those of a read are copies.
fn drop_payload(event: &mut Event) {
    if let Event::Task(TaskEvent { change: TaskChange::Submitted { spec }, .. }) = event
        && !spec.payload.is_empty()
    {
        *spec = Arc::new(spec.without_payload());
    }
}

/// Waits until the index or the hub announces a commit.
async fn announcement(unseen: Option<&Unseen>, durable: &mut watch::Receiver<Revision>) {
    match unseen {
        Some(unseen) => unseen.added().await,
        // The watch keeps the hub, and so the sender.
        None => drop(durable.changed().await),
    }
}

async fn reach(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(unseen) = &self.unseen {
            self.hub.unregister(&self.filter, unseen);
        }
        self.hub.meter.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
