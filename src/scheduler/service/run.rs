//! The loop: messages, timers, and the drain.

use std::time::{Duration, Instant};

use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::model::{Event, Timestamp};
use crate::pool::Report;
use crate::runners::StopCause;
use crate::runners::remote::Token;
use crate::scheduler::core::{AttemptEnd, Decisions};
use crate::scheduler::journal_trim;
use crate::scheduler::message::Message;
use crate::telemetry::liveness::Phase;
use crate::telemetry::panics;

use super::state::{Drain, Service};

/// Messages handled before a commit.
const DRAIN_MAX: usize = 4_096;
/// Ends of parents of which tasks take notice in one turn.
const RELEASES_MAX: usize = 4_096;
/// Maximum time between two iterations of the loop.
const IDLE_TICK: Duration = if cfg!(test) { Duration::from_hours(1) } else { Duration::from_secs(1) };

impl Service {
    /// Runs until the server has drained: every attempt has ended and every event is durable. Blocks; use a
    /// dedicated thread, so that a busy runtime cannot delay the scheduler.
    pub fn run(mut self, runtime: &runtime::Handle) {
        let stop_trim = CancellationToken::new();
        let (store, hub) = (self.shared.store.clone(), self.shared.hub.clone());
        let trim = journal_trim::run(store, hub, self.watch_window, stop_trim.clone());
        let trim = runtime.spawn(panics::essential(trim));
        let mut out = Decisions::default();
        self.publish_status(self.shared.clock.now());
        // The first turn waits for nothing: recovered tasks may be ready to start.
        self.turn(None, &mut out);
        while !self.is_drained() {
            let message = self.next_message();
            self.turn(message, &mut out);
        }
        self.observer.stop();
        stop_trim.cancel();
        runtime.block_on(async {
            // Ends soon: it sleeps or trims.
            let _ = trim.await;
            for pool in self.pools.iter().flatten() {
                pool.stop().await;
            }
        });
    }

    /// Handles a message and the others that have arrived, and all that is due.
    pub(super) fn turn(&mut self, first: Option<Message>, out: &mut Decisions) {
        let now = self.shared.clock.now();
        self.core.advance(now, out);
        self.stage_timers(now, out);
        self.drain_inbox(now, first, out);
        self.continue_batch_cancels(now, out);
        self.continue_deletions(now, out);
        self.release_children(now, out);
        self.core.dispatch(out);
        self.stage(now, out);
        self.stop_running_attempts();
        self.commit();
        self.publish_status(now);
    }

    /// Lets tasks take notice of the ends of their parents, also in this turn.
    fn release_children(&mut self, now: Timestamp, out: &mut Decisions) {
        if self.core.has_released_children() && self.may_add_steps() {
            self.stage(now, out);
            self.core.release_children(now, RELEASES_MAX, out);
            self.stage_timers(now, out);
        }
    }

    fn publish_status(&mut self, now: Timestamp) {
        self.observer.heartbeat(self.fault.is_some());
        let projection = &*self.shared.store.projection;
        self.observer.publish_loads(now, &mut self.core, &self.pools, &self.shared.hub, projection);
    }

    /// Waits for a message; `None` if a deadline comes first.
    fn next_message(&mut self) -> Option<Message> {
        let wait = self.wake_at().saturating_duration_since(Instant::now());
        if wait.is_zero() { self.inbox.try_recv().ok() } else { self.inbox.recv_timeout(wait).ok() }
    }

    fn drain_inbox(&mut self, now: Timestamp, first: Option<Message>, out: &mut Decisions) {
        let (mut next, mut handled) = (first, 0);
        while let Some(message) = next {
            self.handle_message(now, message, out);
            self.stage(now, out);
            handled += 1;
            next = if handled < DRAIN_MAX { self.inbox.try_recv().ok() } else { None };
        }
        self.stage(now, out);
    }

    fn is_drained(&self) -> bool {
        self.shared.draining.is_cancelled()
            && self.core.running() == 0
            && self.deletions.requests.is_empty()
            && !self.batches.has_callers()
            && self.is_committed()
    }

    fn wake_at(&mut self) -> Instant {
        let now = Instant::now();
        let has_released = self.core.has_released_children() && self.may_add_steps();
        if has_released || self.has_deletions() || self.has_batch_cancels() {
            return now;
        }
        let mut wake = now + IDLE_TICK;
        if let Some(due) = self.core.next_due() {
            wake = wake.min(now + due.since(self.shared.clock.now()) + Duration::from_micros(1));
        }
        if let Some(due) = self.commit_due() {
            wake = wake.min(due.max(now));
        }
        self.drain.and_then(|drain| drain.stop_at).map_or(wake, |stop_at| wake.min(stop_at))
    }

    fn handle_message(&mut self, now: Timestamp, message: Message, out: &mut Decisions) {
        match message {
            Message::Report(report) => self.handle_report(now, report, out),
            Message::Committed(end, result) => self.committed(end, result),
            Message::Resources(resources) => self.follow(resources),
            Message::Request(request) => self.serve(now, request, out),
        }
    }

    fn handle_report(&mut self, now: Timestamp, report: Report, out: &mut Decisions) {
        match report {
            Report::Started { ticket, worker, at } => {
                self.core.started(ticket, at, worker, out);
                // Started before the pool was paused.
                if let Some(drain) = &mut self.drain {
                    drain.stop_at = Some(Instant::now());
                }
            }
            // Each is a decision of its own, which may belong to another commit.
            Report::Many(reports) => {
                for report in reports {
                    self.handle_report(now, report, out);
                    self.stage(now, out);
                }
            }
            Report::Slots { pool, total, slots } => {
                // Also of a pool that is not configured at present.
                if let Some(pool) = self.core.index_of_pool(&pool) {
                    self.core.set_slots(pool, total, &slots);
                    if let Some(Some(view)) = self.pool_views.get_mut(usize::from(pool)) {
                        view.spec.size = total;
                    }
                }
            }
            Report::Finished { attempt, at, outcome, cause, usage, output, artifacts, link, memory } => {
                let (ticket, events) = (attempt.ticket(), out.events.len());
                self.core.ended(AttemptEnd { ticket, at, outcome, cause, usage, output, artifacts }, out);
                if let Some(pool) = self.pool_mut(ticket) {
                    pool.forget(ticket);
                }
                if let Some(link) = link {
                    self.pending.effects.settled.push((link, Token(ticket.fence)));
                }
                self.pending.effects.memory.extend(memory.map(|memory| *memory));
                attempt.record_end(out.events.get(events).and_then(Event::task));
            }
        }
    }

    /// Starts a drain. A second drain can only bring the deadline forward.
    pub(super) fn drain(&mut self, limit: Duration) {
        let now = Instant::now();
        let deadline = self.drain.map_or(now + limit, |earlier| earlier.deadline.min(now + limit));
        self.drain = Some(Drain { deadline, stop_at: Some(now) });
        self.core.drain();
        for pool in self.pools.iter().flatten() {
            pool.drain();
        }
        self.telemetry.liveness.enter(Phase::Draining);
        self.shared.draining.cancel();
    }

    /// During a drain: asks each running attempt to stop so early that its handler has its grace period before the
    /// deadline, at which it is killed.
    fn stop_running_attempts(&mut self) {
        let now = Instant::now();
        let Some(Drain { deadline, .. }) = self.drain.filter(|drain| drain.stop_at.is_some_and(|at| at <= now)) else {
            return;
        };
        let mut next = None;
        for ticket in self.core.running_tickets() {
            let Some(pool) = self.pool(ticket) else { continue };
            let Some(attempt) = pool.attempt(ticket) else { continue };
            let stop_at = deadline.checked_sub(self.grace_of(&attempt.spec().options.handler)).unwrap_or(now);
            if stop_at <= now {
                pool.stop_attempt(ticket, StopCause::Drain, deadline.saturating_duration_since(now));
            } else {
                next = Some(next.map_or(stop_at, |next: Instant| next.min(stop_at)));
            }
        }
        self.drain = Some(Drain { deadline, stop_at: next });
    }
}
