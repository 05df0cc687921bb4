//! What keeps a task from starting.

use crate::model::Timestamp;
use crate::proto::v1::{self, EstimateBasis, blocker::Kind};
use crate::scheduler::{Blocker, Estimate, Explanation, Position, TaskSnapshot, UnfinishedParents};

use super::numbers::{to_i32, to_i64};
use super::task::state;
use super::task_limit::hold;
use super::time::timestamp;

/// `explanation`: `None` if the task was deleted since it was read.
pub fn response(snapshot: &TaskSnapshot, explanation: Option<Explanation>, now: Timestamp) -> v1::ExplainTaskResponse {
    let status = &snapshot.task.status;
    let mut response = v1::ExplainTaskResponse {
        task_id: snapshot.task.spec.id.to_string(),
        state: state(status.state),
        revision: snapshot.revision.0,
        ..v1::ExplainTaskResponse::default()
    };
    let Some(Explanation { state: present, blockers, position: found, estimate }) = explanation else {
        return response;
    };
    response.state = state(present);
    let kinds = blockers.into_iter().filter_map(|found| kind(found, snapshot));
    response.blockers = kinds.map(|kind| v1::Blocker { kind: Some(kind) }).collect();
    response.position = found.map(position);
    if let Some(estimate) = estimate {
        let (at, basis) = match estimate {
            Estimate::Now => (now, EstimateBasis::FreeSlot),
            Estimate::AfterTimer => (status.eligible_at, EstimateBasis::Delay),
            Estimate::ByRunTimes(at) => (at, EstimateBasis::RunTimes),
        };
        response.estimated_start = Some(timestamp(at));
        response.set_estimate_basis(basis);
    }
    response
}

/// `None` for a limit that another task with the same ID has, which was submitted since.
fn kind(blocker: Blocker, snapshot: &TaskSnapshot) -> Option<Kind> {
    let (options, eligible_at) = (&snapshot.task.spec.options, snapshot.task.status.eligible_at);
    let slots = |slots| v1::TakenSlots { slots: to_i32(slots) };
    Some(match blocker {
        Blocker::Delay => Kind::DelayedUntil(timestamp(eligible_at)),
        Blocker::BackOff => Kind::RetriesAt(timestamp(eligible_at)),
        Blocker::Parents(UnfinishedParents { count, ids }) => {
            let task_ids = ids.iter().map(ToString::to_string).collect();
            Kind::Parents(v1::UnfinishedParents { count: to_i32(count), task_ids })
        }
        Blocker::Limit { hold: waits_for, before, at_least } => {
            let hold = Some(hold(&waits_for, options)?);
            Kind::Limit(v1::LimitBlocker { hold, before: to_i64(before), at_least })
        }
        Blocker::PoolPaused => Kind::PausedPool(options.pool.to_string()),
        Blocker::PoolNotConfigured => Kind::MissingPool(options.pool.to_string()),
        Blocker::NoWorker => Kind::HandlerWithoutWorker(options.handler.to_string()),
        Blocker::PoolFull { slots: all } => Kind::PoolSlots(slots(all)),
        Blocker::NamespaceFull { slots: all } => Kind::NamespaceSlots(slots(all)),
        Blocker::LowMemory => Kind::LowMemory(true),
        Blocker::Trial => Kind::Trial(true),
        Blocker::Draining => Kind::Draining(true),
    })
}

fn position(position: Position) -> v1::QueuePosition {
    v1::QueuePosition {
        more_urgent: to_i64(position.more_urgent),
        before: to_i64(position.before),
        at_least: position.at_least,
        other_namespaces: to_i64(position.namespaces),
        dispatched: position.is_dispatched,
        other_fairness_keys: to_i64(position.keys),
    }
}
