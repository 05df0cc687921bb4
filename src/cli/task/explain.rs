//! `lineshaft task explain`: why tasks have not started.

use crate::cli::client::Client;
use crate::cli::error::CommandResult;
use crate::cli::format::{self, counted};
use crate::cli::printer::Printer;
use crate::cli::view::{Text, View};
use crate::proto::v1::{self, EstimateBasis, blocker::Kind};

use super::limit;

pub async fn run(ids: Vec<String>, client: Client, printer: Printer) -> CommandResult {
    let explain =
        async |task_id| Ok(client.tasks().explain_task(v1::ExplainTaskRequest { task_id }).await?.into_inner());
    printer.print_each(ids, explain, text).await
}

/// The state, a line for each blocker, the tasks before it, and the estimated start.
fn text(response: &v1::ExplainTaskResponse, view: &View) -> Text {
    let mut lines = vec![format!("{} is {}", response.task_id, format::task_state(response.state))];
    lines.extend(response.blockers.iter().filter_map(|blocker| Some(line(blocker.kind.as_ref()?, view))));
    lines.extend(response.position.as_ref().map(position));
    lines.extend(estimate(response, view));
    lines.join("\n  ").into()
}

fn line(kind: &Kind, view: &View) -> String {
    let time = |at| view.time(Some(at)).text;
    match kind {
        Kind::DelayedUntil(at) => format!("is delayed until {}", time(at)),
        Kind::RetriesAt(at) => format!("waits for its next attempt until {}", time(at)),
        Kind::Parents(parents) => {
            let shown = parents.task_ids.join(" ");
            let others = usize::try_from(parents.count).unwrap_or(0).saturating_sub(parents.task_ids.len());
            let others = match others {
                0 => String::new(),
                others => format!(" and {}", counted(others.try_into().unwrap_or(i64::MAX), "other")),
            };
            format!("waits for {}: {shown}{others}", counted(parents.count.into(), "parent"))
        }
        Kind::Limit(blocker) => {
            let least = if blocker.at_least { "at least " } else { "" };
            let before = counted(blocker.before, "task");
            format!("{}; {least}{before} before it", limit::hold(blocker.hold.as_ref(), view))
        }
        Kind::PausedPool(pool) => format!("pool {pool} is paused; `lineshaft pool update {pool} --resume` resumes it"),
        Kind::MissingPool(pool) => format!("pool {pool} is not configured any more"),
        Kind::HandlerWithoutWorker(handler) => format!("no connected worker offers handler {handler}"),
        Kind::PoolSlots(taken) => format!("other tasks have all {} of the pool", counted(taken.slots.into(), "slot")),
        Kind::NamespaceSlots(taken) => {
            format!("its namespace has all {} of the pool that it may have", counted(taken.slots.into(), "slot"))
        }
        Kind::LowMemory(_) => {
            "the memory is low: tasks start again when more than limits.memory_reserve is unused".to_owned()
        }
        Kind::Trial(_) => "the server runs another task alone, which may have crashed it".to_owned(),
        Kind::Draining(_) => "the server is shutting down".to_owned(),
    }
}

fn position(position: &v1::QueuePosition) -> String {
    let least = if position.at_least { "at least " } else { "" };
    let urgent = match position.more_urgent {
        0 => String::new(),
        more => format!(", and {more} of higher priority"),
    };
    let others = [(position.other_namespaces, "other namespace"), (position.other_fairness_keys, "other fairness key")];
    let others: Vec<_> =
        others.into_iter().filter(|(count, _)| *count > 0).map(|(count, of)| counted(count, of)).collect();
    let turns =
        if others.is_empty() { String::new() } else { format!("; it takes turns with {}", others.join(" and ")) };
    format!("{least}{} before it in the queue{urgent}{turns}", counted(position.before, "task"))
}

fn estimate(response: &v1::ExplainTaskResponse, view: &View) -> Option<String> {
    let at = view.time(Some(response.estimated_start.as_ref()?)).text;
    Some(match response.estimate_basis() {
        EstimateBasis::FreeSlot => "starts at once: a slot is free".to_owned(),
        EstimateBasis::Delay => format!("starts at {at}: a slot is free"),
        EstimateBasis::RunTimes => format!("starts about {at}, if tasks run as long as before"),
        EstimateBasis::Unspecified => format!("starts about {at}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blockers_position_and_estimate_have_a_line_each() {
        let parents = v1::UnfinishedParents { count: 3, task_ids: vec!["a".to_owned(), "b".to_owned()] };
        let places = v1::limit_hold::Reason::Places(v1::PlacesTaken { taken: 5, max: 5 });
        let hold = v1::LimitHold { key: "k".to_owned(), reason: Some(places), ..v1::LimitHold::default() };
        let kinds = [
            Kind::Limit(v1::LimitBlocker { hold: Some(hold), before: 1, at_least: false }),
            Kind::Parents(parents),
            Kind::PoolSlots(v1::TakenSlots { slots: 4 }),
            Kind::NamespaceSlots(v1::TakenSlots { slots: 1 }),
        ];
        let response = v1::ExplainTaskResponse {
            task_id: "t".to_owned(),
            state: v1::TaskState::Queued.into(),
            blockers: kinds.map(|kind| v1::Blocker { kind: Some(kind) }).into(),
            position: Some(v1::QueuePosition {
                more_urgent: 2,
                before: 1_000,
                at_least: true,
                other_namespaces: 1,
                dispatched: false,
                other_fairness_keys: 2,
            }),
            estimated_start: Some(prost_types::Timestamp::default()),
            estimate_basis: EstimateBasis::FreeSlot.into(),
            ..v1::ExplainTaskResponse::default()
        };
        let expected = [
            "t is QUEUED",
            "limit k: 5 of 5 places taken; 1 task before it",
            "waits for 3 parents: a b and 1 other",
            "other tasks have all 4 slots of the pool",
            "its namespace has all 1 slot of the pool that it may have",
            "at least 1000 tasks before it in the queue, and 2 of higher priority; it takes turns with 1 other namespace \
             and 2 other fairness keys",
            "starts at once: a slot is free",
        ];
        assert_eq!(text(&response, &View::of_stdout(None)).to_string(), expected.join("\n  "));
    }
}
