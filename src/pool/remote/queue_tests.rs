//! Which worker gets which attempt, and how many steps that takes.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::PoolName;
use crate::pool::Assignment;
use crate::telemetry::metrics::{Metrics, PoolMeter};

const NONE_HELD: [bool; Priority::COUNT] = [false; Priority::COUNT];

fn handler(number: usize) -> HandlerName {
    HandlerName::parse(&format!("h{number}")).unwrap()
}

fn attempt(fence: u64, handler_number: usize, priority: Priority) -> Arc<Attempt> {
    Attempt::new(Assignment::sample(fence, handler(handler_number).as_str(), "t", priority, b"", false))
}

fn meter() -> PoolMeter {
    PoolMeter::new(&Metrics::off(), &PoolName::parse("p").unwrap(), &Arc::default())
}

fn add_worker(queue: &RemoteQueue, meter: &PoolMeter, key: WorkerKey) {
    let id = format!("w{key}");
    let worker =
        RemoteWorker::new(id.as_str().into(), id.as_str().into(), key, Duration::from_secs(30), meter.worker());
    queue.add_worker(Arc::new(worker));
}

/// The fences of the attempts that start, with their workers.
fn starts(granted: &Granted) -> Vec<(WorkerKey, u64)> {
    granted.starts.iter().map(|(worker, attempt)| (worker.key, attempt.ticket().fence)).collect()
}

fn push(queue: &RemoteQueue, attempt: Arc<Attempt>) -> Granted {
    let name = attempt.spec().options.handler.clone();
    queue.push(&name, [attempt], NONE_HELD);
    queue.start_pushed()
}

fn steps(queue: &RemoteQueue) -> usize {
    std::mem::take(&mut queue.state.lock().steps)
}

#[test]
fn free_slots_go_to_the_workers_in_turn_whatever_their_groups() {
    let (queue, meter) = (RemoteQueue::default(), meter());
    for (key, handlers) in [(1, vec![handler(0)]), (2, vec![handler(1), handler(0)]), (3, vec![handler(0)])] {
        add_worker(&queue, &meter, key);
        assert!(queue.open(key, &handlers, 2).is_empty());
    }
    let order: Vec<_> = (0..7).flat_map(|fence| starts(&push(&queue, attempt(fence, 0, Priority::Normal)))).collect();
    assert_eq!(order, [(1, 0), (2, 1), (3, 2), (1, 3), (2, 4), (3, 5)], "and the last one waits");
}

#[test]
fn a_start_takes_the_same_steps_whatever_the_number_of_handlers_and_of_busy_workers() {
    let (queue, meter) = (RemoteQueue::default(), meter());
    let handlers: Vec<_> = (0..1_000).map(handler).collect();
    for key in 0..1_000 {
        add_worker(&queue, &meter, key);
        queue.open(key, &handlers, 1);
    }
    for fence in 0..1_000 {
        assert_eq!(push(&queue, attempt(fence, 7, Priority::Normal)).starts.len(), 1);
    }
    steps(&queue);
    let waiting = attempt(1_000, 8, Priority::High);
    assert!(push(&queue, waiting.clone()).is_empty());
    assert!(steps(&queue) <= 1_001, "each worker leaves the line once");
    assert!(push(&queue, attempt(1_001, 9, Priority::Low)).is_empty());
    assert!(steps(&queue) <= 2, "all workers are busy");
    let running = attempt(0, 7, Priority::Normal);
    running.set_slot(SlotState::Held);
    let granted = queue.change_slots(3, [(running, SlotChange::Returned)]);
    assert_eq!(starts(&granted), [(3, 1_000)]);
    assert!(steps(&queue) <= 3, "one start");
}

/// What a worker with these handlers would have to start, found by looking at all of them.
fn next_of_all(state: &State, handlers: &[HandlerName]) -> Option<(usize, HandlerName)> {
    for p in Priority::DESCENDING.map(Priority::index) {
        let offered = || handlers.iter().filter_map(|name| Some((name, state.handlers.get(name)?)));
        let age = |queue: &HandlerQueue| queue.attempts[p].front().map(|attempt| attempt.ticket().fence);
        let oldest = offered().filter_map(|(name, queue)| Some((age(queue)?, name))).min_by_key(|(age, _)| *age);
        if let Some((_, name)) = oldest {
            return Some((p, name.clone()));
        }
        if p > 0 && offered().any(|(_, queue)| queue.held_back[p]) {
            return None;
        }
    }
    None
}

/// The invariants of the queue. `offered` are the handlers of the open workers.
fn check(queue: &RemoteQueue, offered: &HashMap<WorkerKey, Vec<HandlerName>>) {
    let state = queue.state.lock();
    let mut slots = 0;
    for (key, worker) in &state.workers {
        assert_eq!(worker.group.is_some(), offered.contains_key(key));
        let Some(group) = worker.group.and_then(|group| state.groups.get(group)) else { continue };
        let expected = next_of_all(&state, &offered[key]);
        assert_eq!(group.next().map(|(p, handler)| (p, handler.clone())), expected);
        assert!(!worker.has_free_slot() || state.paused || expected.is_none(), "worker {key} has nothing to start");
        slots += worker.slots;
    }
    assert_eq!(state.groups.slots(), slots);
    for (name, queue) in &state.handlers {
        let of_groups: usize = queue.groups.iter().filter_map(|key| state.groups.get(*key)).map(Group::slots).sum();
        let workers = offered.iter().filter(|(_, handlers)| handlers.contains(name));
        assert_eq!(of_groups, workers.map(|(key, _)| state.workers[key].slots).sum::<usize>());
    }
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_search_of_all_handlers(steps in prop::collection::vec(any::<[u8; 4]>(), 1..200)) {
        let (queue, meter) = (RemoteQueue::default(), meter());
        let (mut offered, mut running, mut waiting) = (HashMap::new(), Vec::new(), Vec::new());
        for key in 0..4 {
            add_worker(&queue, &meter, key);
        }
        for (fence, [kind, a, b, c]) in steps.into_iter().enumerate() {
            let (number, priority) = (usize::from(a % 5), Priority::DESCENDING[usize::from(b) % Priority::COUNT]);
            let key = WorkerKey::from(b % 4);
            let granted = match kind % 8 {
                0..=2 => {
                    let attempt = attempt(fence as u64, number, priority);
                    waiting.push(attempt.clone());
                    let held_back = std::array::from_fn(|p| c & (1 << p) != 0 && c > 100);
                    queue.push(&handler(number), [attempt], held_back);
                    queue.start_pushed()
                }
                3 | 4 if !running.is_empty() => {
                    let (key, attempt) = running.swap_remove(usize::from(a) % running.len());
                    queue.change_slots(key, [(attempt, SlotChange::Returned)])
                }
                5 => {
                    let handlers: Vec<_> = (0..5).filter(|number| a & (1 << number) != 0 || *number == 0).map(handler).collect();
                    offered.insert(key, handlers.clone());
                    queue.open(key, &handlers, 1 + usize::from(c % 3))
                }
                6 => {
                    offered.remove(&key);
                    queue.close(key);
                    Granted::default()
                }
                7 if c < 64 => queue.set_paused(a % 3 == 0),
                _ if !waiting.is_empty() => {
                    let attempt = waiting.swap_remove(usize::from(a) % waiting.len());
                    let options = &attempt.spec().options;
                    if attempt.recall() && c % 2 == 0 {
                        queue.remove(&options.handler, options.priority, attempt.ticket());
                    }
                    // Otherwise it is found when it would start.
                    queue.start_pushed()
                }
                _ => Granted::default(),
            };
            running.extend(granted.starts.into_iter().map(|(worker, attempt)| (worker.key, attempt)));
            check(&queue, &offered);
        }
    }
}
