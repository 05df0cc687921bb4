//! How many tasks do not start, and why: the kinds of blockers that `explain` names for a task, counted for all.

use crate::model::{BlockedTasks, BlockerKind, Hold, Priority};

use super::explain::is_full;
use super::pool_state::PoolState;
use super::ready_queue::ReadyQueue;
use super::state::Core;

impl Core {
    /// The blocked tasks of all configured pools, and of others that have tasks: WAITING ones by their holds, and QUEUED ones by what
    /// keeps their pool from starting them. Costs the same however many tasks there are.
    pub fn blocked(&self) -> Vec<BlockedTasks> {
        let pools = self.pools.iter().filter(|pool| pool.configured || pool.waiting + pool.queued > 0);
        pools.map(|pool| self.blocked_of(pool)).collect()
    }

    fn blocked_of(&self, pool: &PoolState) -> BlockedTasks {
        let all_queued = |applies: bool| if applies { pool.queued } else { 0 };
        let undispatched = |of: fn(&ReadyQueue, Priority) -> usize| {
            let queues =
                pool.queues.iter().flat_map(|queue| Priority::DESCENDING.map(|priority| of(&queue.ready, priority)));
            queues.sum::<usize>() as u64
        };
        let count = |kind| match kind {
            BlockerKind::Delay => pool.held.of(Hold::Delay),
            BlockerKind::BackOff => pool.held.of(Hold::BackOff),
            BlockerKind::Parents => pool.held.of(Hold::Parents),
            BlockerKind::Limit => pool.held.of(Hold::Limit),
            BlockerKind::PausedPool => all_queued(pool.configured && pool.spec.paused),
            BlockerKind::MissingPool => all_queued(!pool.configured),
            BlockerKind::NoWorker if pool.configured => pool.without_worker(),
            BlockerKind::PoolSlots => all_queued(is_full(pool)),
            BlockerKind::NamespaceSlots => {
                undispatched(|ready, priority| ready.len(priority) - ready.startable(priority))
            }
            BlockerKind::LowMemory => all_queued(self.lacks_memory(pool)),
            BlockerKind::Trial if self.is_in_trial() => undispatched(ReadyQueue::len),
            BlockerKind::Draining => all_queued(self.draining),
            BlockerKind::NoWorker | BlockerKind::Trial => 0,
        };
        BlockedTasks { pool: pool.spec.name.clone(), counts: BlockerKind::ALL.map(count) }
    }
}
