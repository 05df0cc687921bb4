//! The end of a server and the start of the next one.

use crate::model::{Payload, TaskState, Timestamp};
use crate::runners::Outcome;

use super::super::Decisions;
use super::super::tests::attempt_end;
use super::answers::Answers;
use super::cores::{pool_name, read_journal, read_rows};
use super::history::{Cause, Known, Start};
use super::pools::{Attempt, Pool};
use super::promotions::Promotions;
use super::remote::{adoptions, outlives};
use super::steps::Restart;
use super::world::{Pending, World};

/// Attempts of which a report may still arrive after a restart.
const LOST_MAX: usize = 30;

impl World {
    /// For example from a process that outlived the server.
    pub fn reports_of_lost_attempts_change_nothing(&mut self) {
        for ticket in &self.lost {
            self.core.started(*ticket, Timestamp(self.now), "w".into(), &mut self.out);
            let end = attempt_end(*ticket, self.now, Outcome::Completed(Payload::default()), None);
            self.core.ended(end, &mut self.out);
        }
        assert!(self.out.events.is_empty(), "a report from before a restart has no effect");
    }

    /// Ends the server and starts the next one, which has only the durable events.
    pub fn restart(&mut self, restart: Restart) -> Cause {
        if restart.clean {
            self.drain();
        }
        let started = self.pools.iter_mut().flat_map(|pool| pool.claimed.drain(..).chain(pool.running.drain(..)));
        let started: Vec<_> = started.chain(self.unsettled.drain(..)).collect();
        let (remote, local): (Vec<_>, Vec<_>) = started.into_iter().partition(|attempt| outlives(attempt.ticket));
        self.lose(local);
        self.lost.extend(self.pools.iter_mut().flat_map(|pool| pool.assigned.drain(..)).map(|a| a.ticket));
        (self.pending, self.out, self.deletion) = (Pending::default(), Decisions::default(), None);
        (self.given, self.unstarted_trial) = (Vec::new(), None);
        self.fairness.forget();
        self.promotions = Promotions::default();
        self.live = self.durable.clone();
        self.tasks_keep_their_places();
        self.now = self.now.saturating_add_signed(restart.clock_ms * 1_000);
        self.begin_schedules();
        self.live.start = Start { revision: self.live.revision, at: self.at() };
        self.epoch += 1;
        let projected = self.journal.len() * usize::from(restart.projected) / 256;
        let mut cores = [read_journal(&self.journal), read_rows(&self.journal, projected)];
        let is_running = |task: &&Known| task.state == TaskState::Running && !task.is_remote();
        let running = self.durable.tasks.values().filter(is_running).count();
        self.limits.restart(self.live.revision, restart.clock_ms);
        let [from_journal, from_rows] = cores.each_mut().map(|core| {
            let mut out = Decisions::default();
            core.options.catalog = self.limits.catalog(core);
            if !restart.clean {
                core.be_careful(Timestamp(self.now));
            }
            core.reset_all_counters(Timestamp(self.now));
            core.begin_epoch(self.epoch);
            core.recover(Timestamp(self.now), &mut out);
            core.check();
            (Answers::of(core), out)
        });
        from_rows.0.assert_same(&from_journal.0, "a restart decides the same, whatever it reads");
        assert_eq!(from_rows.1.events, from_journal.1.events, "a restart decides the same, whatever it reads");
        assert_eq!(adoptions(&from_rows.1), adoptions(&from_journal.1), "attempts that go on");
        let [by_journal, by_rows] = cores;
        self.batch_cancels = by_journal.unfinished_cancels().into();
        // Tickets are those of one core: they contain indices of its table.
        (self.core, self.out) = if restart.from_rows { (by_rows, from_rows.1) } else { (by_journal, from_journal.1) };
        if restart.clock_ms < 0 {
            self.limits.note_restored(&self.core);
        }
        for (index, pool) in self.pools.iter_mut().enumerate() {
            let settings = self.durable.pools.get(&pool_name(index)).copied();
            *pool = Pool { settings, ..Pool::default() };
        }
        let remote = remote.into_iter().map(|attempt| (attempt.ticket.fence, attempt)).collect();
        let lost = self.adopt(remote);
        self.lose(lost);
        self.lost.drain(..self.lost.len().saturating_sub(LOST_MAX));
        Cause::Restart { running }
    }

    fn lose(&mut self, attempts: Vec<Attempt>) {
        for attempt in attempts {
            self.lost.push(attempt.ticket);
            self.has_run(&attempt);
        }
    }

    /// Ends all attempts of the server's own workers, and makes everything durable.
    pub fn drain(&mut self) {
        self.core.drain();
        self.commit();
        while self.pools.iter().any(|pool| !pool.claimed.is_empty()) {
            self.report(0);
        }
        self.observe(&Cause::Input);
        while self.core.running() > 0 {
            self.end(0, u8::MAX);
        }
        self.answer_recalls();
        self.stage();
        self.commit();
    }
}
