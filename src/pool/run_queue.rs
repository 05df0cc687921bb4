//! The attempts of a pool that have not started, the slots, and the drivers that wait, under one lock.
//!
//! A *slot* is permission to run one attempt; the pool has as many as its size. A *driver* is what runs an attempt:
//! a thread, or a task of the runtime. A driver takes a slot together with the attempt that it starts. An attempt that
//! waits can give its slot back and take one again while its driver keeps it.
//!
//! Invariants, each of which holds whenever the lock is free:
//! - no more slots are taken than the pool has, unless the pool has shrunk while they were taken;
//! - no driver waits that could use a free slot, unless as many as may wake at a time are on their way: the step that adds an
//!   attempt, frees a slot or lifts an obstacle also gives the slot to such a driver, and each that arrives has the next one woken.
//!   So a thousand short attempts do not wake a thousand threads, most of which would come too late;
//! - slots go to the highest priority first. Within a priority, attempts that take a slot again come before those that
//!   start, and older attempts before younger ones.
//!
//! One queue serves all workers. A deque for each worker, with stealing, was measured and is not faster, because all
//! attempts come from one thread; and it cannot keep the order, since the owner of a deque cannot know how long its
//! next attempt will run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Priority, Timestamp};

use super::attempt::{Attempt, Ticket};
use super::parker::{ParkState, Parker};
use crate::runners::sync::Mutex;

pub(super) struct RunQueue {
    state: Mutex<State>,
    /// Most drivers that may be on their way to start an attempt.
    waking_max: usize,
}

/// What a driver has to do next.
pub(super) enum Next {
    /// Run the attempt, for which the driver now holds a slot.
    Start(Arc<Attempt>),
    /// Park, and then ask again.
    Park,
    /// Leave, because the number of the driver is not below the number of slots.
    Leave,
}

/// What a pool with workers of its own has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub slots: usize,
    /// Slots that attempts have.
    pub taken: usize,
    /// Attempts that nothing but a slot keeps from starting.
    pub waiting: usize,
    /// Since when the oldest of them could start.
    pub oldest: Option<Timestamp>,
}

/// Drivers to wake once the lock is released.
type Woken = Vec<Arc<Parker>>;

#[derive(Default)]
struct State {
    /// Attempts that have not started, by priority index, oldest first.
    attempts: [VecDeque<Arc<Attempt>>; Priority::COUNT],
    /// By priority index: the scheduler has more eligible tasks than it has dispatched.
    held_back: [bool; Priority::COUNT],
    paused: bool,
    /// Nothing starts, and no attempt takes a slot again.
    resting: bool,
    slots: usize,
    taken: usize,
    /// Taken slots of drivers that were woken to start an attempt and have not chosen it yet.
    promised: usize,
    /// Drivers without an attempt. The most recently parked is woken first, because its caches are warm.
    idle: Vec<Arc<Parker>>,
    /// Drivers whose attempt waits for a slot, by priority index and age of the attempt.
    resuming: [BTreeMap<u64, Arc<Parker>>; Priority::COUNT],
}

/// Which attempt gets the next free slot.
enum Turn {
    Start(usize),
    Resume(usize),
}

impl RunQueue {
    /// For a machine with so many cores.
    pub fn new(cores: usize) -> Self {
        Self { state: Mutex::default(), waking_max: cores.max(2) }
    }

    /// Adds attempts, the oldest of each priority first. `held_back[p]` means that the scheduler has more eligible
    /// tasks of priority `p`: until a later push clears it, no attempt of a lower priority starts.
    pub fn push(&self, attempts: impl IntoIterator<Item = Arc<Attempt>>, held_back: [bool; Priority::COUNT]) {
        self.change(|state| {
            state.held_back = held_back;
            for attempt in attempts.into_iter().filter(|attempt| !attempt.is_recalled()) {
                state.attempts[attempt.urgency().index()].push_back(attempt);
            }
        });
    }

    /// While paused, no attempt starts. One that has started can still take its slot again.
    pub fn set_paused(&self, paused: bool) {
        self.change(|state| state.paused = paused);
    }

    /// While it rests, the queue gives no slot to any attempt.
    pub fn set_resting(&self, resting: bool) {
        self.change(|state| state.resting = resting);
    }

    /// Sets the number of slots. When there are fewer, no attempt starts until fewer are taken, and all idle drivers are
    /// woken, because some have to leave.
    pub fn set_slots(&self, slots: usize) {
        let mut leaving = Woken::new();
        self.change(|state| {
            if slots < state.slots {
                leaving = std::mem::take(&mut state.idle);
                for parker in &leaving {
                    parker.set(ParkState::Awake);
                }
            }
            state.slots = slots;
        });
        unpark(leaving);
    }

    /// The number of attempts that have not started, by priority index.
    pub fn counts(&self) -> [usize; Priority::COUNT] {
        let state = self.state.lock();
        std::array::from_fn(|p| state.attempts[p].len())
    }

    pub fn load(&self) -> Load {
        let state = self.state.lock();
        let attempts = || state.attempts.iter().filter(|_| !state.paused && !state.resting);
        Load {
            slots: state.slots,
            taken: state.taken,
            waiting: attempts().map(VecDeque::len).sum(),
            oldest: attempts().filter_map(|attempts| Some(attempts.front()?.eligible_at())).min(),
        }
    }

    /// Removes an attempt that has not started, so that its payload is freed.
    pub fn remove(&self, priority: Priority, ticket: Ticket) {
        let mut state = self.state.lock();
        let attempts = &mut state.attempts[priority.index()];
        let found = attempts.binary_search_by_key(&ticket.fence, |attempt| attempt.ticket().fence);
        let removed = found.ok().and_then(|at| attempts.remove(at));
        drop(state);
        // After the lock is released, because a large payload takes a while to free.
        drop(removed);
    }

    /// Gives back the slot of driver number `index`, if it has one, and takes the next attempt with a slot for it.
    pub(super) fn next(&self, index: usize, parker: &Arc<Parker>, holds_slot: bool) -> Next {
        let mut next = Next::Leave;
        self.change(|state| {
            state.settle(parker, holds_slot);
            if index < state.slots {
                next = state.start_next().map_or(Next::Park, Next::Start);
            }
            if matches!(next, Next::Park) {
                parker.set(ParkState::Waiting);
                state.idle.push(parker.clone());
            }
        });
        next
    }

    /// Gives back the driver's slot, if it has one; the driver waits for nothing any more.
    pub(super) fn release(&self, parker: &Arc<Parker>, holds_slot: bool) {
        self.change(|state| state.settle(parker, holds_slot));
    }

    /// Lists the driver of an attempt that waits for a slot. The driver must park.
    pub(super) fn resume(&self, parker: &Arc<Parker>, attempt: &Attempt) {
        let p = attempt.urgency().index();
        self.change(|state| {
            parker.set(ParkState::Waiting);
            state.resuming[p].insert(attempt.ticket().fence, parker.clone());
        });
    }

    /// Makes a change, and gives the slots that are free afterwards to the drivers that can use them.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let woken = state.fill_slots(self.waking_max);
        drop(state);
        unpark(woken);
    }
}

fn unpark(woken: Woken) {
    for parker in woken {
        parker.unpark();
    }
}

impl State {
    /// Takes back the slot of a driver and removes the driver from the lists of those that wait.
    fn settle(&mut self, parker: &Arc<Parker>, holds_slot: bool) {
        let state = parker.set(ParkState::Awake);
        if state == ParkState::Waiting {
            let others = |listed: &Arc<Parker>| !Arc::ptr_eq(listed, parker);
            self.idle.retain(others);
            self.resuming.iter_mut().for_each(|waiting| waiting.retain(|_, listed| others(listed)));
        }
        if state == ParkState::Starting {
            self.promised -= 1;
        }
        self.taken -= usize::from(holds_slot || matches!(state, ParkState::Starting | ParkState::Resuming));
    }

    /// Which attempt gets the next free slot. `promised` drivers are about to start the first attempts; `has_driver`
    /// is whether one more waits. Without it no attempt can start, so that a slot need not be kept free for one.
    fn turn(&self, mut promised: usize, has_driver: bool) -> Option<Turn> {
        if self.resting || self.taken >= self.slots {
            return None;
        }
        for p in Priority::DESCENDING.map(Priority::index) {
            if !self.resuming[p].is_empty() {
                return Some(Turn::Resume(p));
            }
            if self.paused || !has_driver {
                continue;
            }
            let queued = self.attempts[p].len();
            if queued > promised {
                return Some(Turn::Start(p));
            }
            promised -= queued;
            // Nothing is below the lowest priority.
            if self.held_back[p] && p > 0 {
                return None;
            }
        }
        None
    }

    /// Gives free slots to the drivers that wait, until no slot is free, no driver can use one, or enough are on their way.
    fn fill_slots(&mut self, waking_max: usize) -> Woken {
        let mut woken = Woken::new();
        while let Some(turn) = self.turn(self.promised, !self.idle.is_empty()) {
            match turn {
                Turn::Resume(p) => self.resume_oldest(p, &mut woken),
                Turn::Start(_) if self.promised >= waking_max => break,
                Turn::Start(_) => {
                    let Some(parker) = self.idle.pop() else { break };
                    parker.set(ParkState::Starting);
                    self.promised += 1;
                    self.taken += 1;
                    woken.push(parker);
                }
            }
        }
        woken
    }

    /// Takes a slot for the oldest attempt of a priority that waits for one.
    fn resume_oldest(&mut self, p: usize, woken: &mut Woken) {
        if let Some((_, parker)) = self.resuming[p].pop_first() {
            parker.set(ParkState::Resuming);
            self.taken += 1;
            woken.push(parker);
        }
    }

    /// Takes the first attempt and a slot for it, unless an attempt that waits for a slot comes first.
    fn start_next(&mut self) -> Option<Arc<Attempt>> {
        loop {
            let Turn::Start(p) = self.turn(0, true)? else { return None };
            let attempt = self.attempts[p].pop_front()?;
            // Fails if it was recalled.
            if attempt.claim() {
                self.taken += 1;
                return Some(attempt);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;
    use crate::pool::Assignment;

    const NONE: [bool; 4] = [false; 4];

    fn attempt(fence: u64, priority: Priority) -> Arc<Attempt> {
        Attempt::new(Assignment::sample(fence, "h", "t", priority, b"", false))
    }

    fn queue(slots: usize) -> RunQueue {
        let queue = RunQueue::new(2);
        queue.set_slots(slots);
        queue
    }

    /// The fence of the attempt that a driver without a slot starts.
    fn start(queue: &RunQueue, driver: &Arc<Parker>) -> Option<u64> {
        match queue.next(0, driver, false) {
            Next::Start(attempt) => Some(attempt.ticket().fence),
            Next::Park | Next::Leave => None,
        }
    }

    /// A driver that nothing has woken.
    fn driver() -> Arc<Parker> {
        Arc::default()
    }

    #[test]
    fn attempts_start_by_priority_then_age_and_none_below_one_that_is_held_back() {
        let queue = queue(9);
        let fill = |first| {
            let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
            (first..).zip(priorities).map(|(fence, priority)| attempt(fence, priority))
        };
        queue.push(fill(10), [false, true, false, false]);
        let drivers: [_; 5] = std::array::from_fn(|_| driver());
        let started = drivers[..4].iter().map(|driver| start(&queue, driver));
        assert_eq!(started.collect::<Vec<_>>(), [Some(12), Some(11), Some(13), None], "NORMAL is held back");
        assert_eq!(queue.counts(), [1, 0, 0, 0]);
        queue.push(Vec::new(), NONE);
        assert_eq!(drivers[3].set(ParkState::Starting), ParkState::Starting, "the parked driver is woken");
        assert_eq!(start(&queue, &drivers[3]), Some(10));
    }

    #[test]
    fn a_paused_queue_starts_nothing_and_keeps_its_attempts() {
        let (queue, driver) = (queue(1), driver());
        queue.set_paused(true);
        queue.push(vec![attempt(1, Priority::Low)], NONE);
        assert_eq!(queue.load(), Load { slots: 1, ..Load::default() }, "none waits for a slot");
        assert_eq!((start(&queue, &driver), queue.counts()), (None, [1, 0, 0, 0]));
        queue.set_paused(false);
        assert_eq!(start(&queue, &driver), Some(1));
    }

    #[test]
    fn no_more_attempts_start_than_there_are_slots() {
        let queue = queue(2);
        queue.push((0..9).map(|n| attempt(n, Priority::Normal)), NONE);
        let drivers: [_; 3] = std::array::from_fn(|_| driver());
        let started = drivers.iter().map(|driver| start(&queue, driver));
        assert_eq!(started.collect::<Vec<_>>(), [Some(0), Some(1), None]);
        queue.release(&drivers[0], true);
        assert_eq!(start(&queue, &drivers[2]), Some(2), "the parked driver got the slot");
        let oldest = Some(attempt(0, Priority::Normal).eligible_at());
        assert_eq!(queue.load(), Load { slots: 2, taken: 2, waiting: 6, oldest });
        queue.set_slots(1);
        queue.release(&drivers[1], true);
        assert_eq!(start(&queue, &drivers[1]), None, "one slot is left, and taken");
        assert!(matches!(queue.next(1, &drivers[0], false), Next::Leave));
    }

    #[test]
    fn a_recalled_attempt_leaves_the_queue_at_once_and_one_recalled_before_the_push_never_enters() {
        let queue = queue(1);
        let attempts: Vec<_> = (0..4).map(|n| attempt(n, Priority::High)).collect();
        assert!(attempts[0].recall());
        queue.push(attempts.clone(), NONE);
        assert!(attempts[2].recall());
        queue.remove(Priority::High, attempts[2].ticket());
        assert_eq!(queue.counts(), [0, 0, 2, 0]);
        assert_eq!([0, 2].map(|n| Arc::strong_count(&attempts[n])), [1, 1], "nothing else holds them");
    }

    #[test]
    fn a_driver_that_leaves_passes_its_wake_up_on() {
        let queue = queue(2);
        let (first, second) = (driver(), driver());
        assert_eq!((start(&queue, &first), start(&queue, &second)), (None, None));
        queue.push(vec![attempt(1, Priority::Normal)], NONE);
        assert_eq!(second.set(ParkState::Starting), ParkState::Starting, "the latest to park is woken");
        queue.release(&second, false);
        assert_eq!(first.set(ParkState::Starting), ParkState::Starting);
        assert_eq!(start(&queue, &first), Some(1));
    }

    #[test]
    fn drivers_wake_a_few_at_a_time_until_all_attempts_have_one() {
        let queue = queue(9);
        let drivers: [_; 9] = std::array::from_fn(|_| driver());
        assert!(drivers.iter().all(|driver| start(&queue, driver).is_none()));
        queue.push((0..9).map(|n| attempt(n, Priority::Normal)), NONE);
        let mut started = Vec::new();
        while started.len() < 9 {
            let waking = drivers.iter().filter(|driver| state_of(driver) == ParkState::Starting);
            assert_eq!(waking.clone().count(), 2.min(9 - started.len()));
            started.extend(waking.take(1).map(|driver| start(&queue, driver).unwrap()));
        }
        assert_eq!(started, (0..9).collect::<Vec<_>>());
    }

    fn state_of(driver: &Parker) -> ParkState {
        let state = driver.set(ParkState::Awake);
        driver.set(state);
        state
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push([usize; 4], [bool; 4]),
        Pause(bool),
        Slots(usize),
        /// A driver ends its attempt and asks for the next one, or looks why it was woken.
        Next(usize),
        /// A driver gives back the slot of its attempt.
        Suspend(usize),
        /// The attempt of a driver needs a slot again.
        Resume(usize),
        /// A driver that waits for a slot no longer does.
        GiveUp(usize),
    }

    const DRIVERS: usize = 4;

    fn step() -> impl Strategy<Value = Step> {
        let held = prop::array::uniform4(prop::bool::weighted(0.15));
        prop_oneof![
            4 => (prop::array::uniform4(0..3_usize), held).prop_map(|(counts, held)| Step::Push(counts, held)),
            1 => any::<bool>().prop_map(Step::Pause),
            1 => (1..=DRIVERS).prop_map(Step::Slots),
            9 => (0..DRIVERS).prop_map(Step::Next),
            3 => (0..DRIVERS).prop_map(Step::Suspend),
            3 => (0..DRIVERS).prop_map(Step::Resume),
            1 => (0..DRIVERS).prop_map(Step::GiveUp),
        ]
    }

    /// What a driver does, as the driver itself sees it.
    #[derive(Clone, Default)]
    struct Driven {
        parker: Arc<Parker>,
        attempt: Option<Arc<Attempt>>,
        holds_slot: bool,
        waits: bool,
    }

    impl Driven {
        /// Returns whether the driver runs, and notices a wake-up.
        fn is_awake(&mut self) -> bool {
            let state = state_of(&self.parker);
            if self.waits && state != ParkState::Waiting {
                self.waits = false;
                self.holds_slot = state == ParkState::Resuming;
            }
            !self.waits
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Drives the queue like the workers do, one step of one driver at a time.
        #[test]
        fn slots_are_never_exceeded_never_idle_and_go_to_the_first_in_order(
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let queue = queue(DRIVERS);
            let mut drivers: [Driven; DRIVERS] = std::array::from_fn(|_| Driven::default());
            let (mut fence, mut pushed, mut started) = (0, 0, Vec::new());
            for step in steps {
                match step {
                    Step::Push(counts, held_back) => {
                        let mut attempts = Vec::new();
                        for priority in Priority::DESCENDING {
                            for _ in 0..counts[priority.index()] {
                                fence += 1;
                                attempts.push(attempt(fence, priority));
                            }
                        }
                        pushed += attempts.len();
                        queue.push(attempts, held_back);
                    }
                    Step::Pause(paused) => queue.set_paused(paused),
                    Step::Slots(slots) => queue.set_slots(slots),
                    Step::Next(index) => {
                        let driver = &mut drivers[index];
                        let awake = driver.is_awake();
                        // An attempt that waits for a slot goes on only with one.
                        if awake && (driver.holds_slot || driver.attempt.is_none()) {
                            let before = first_in_order(&queue);
                            driver.attempt = None;
                            match queue.next(index, &driver.parker, driver.holds_slot) {
                                Next::Start(attempt) => {
                                    prop_assert_eq!(Some(attempt.ticket().fence), before);
                                    started.push(attempt.ticket().fence);
                                    (driver.attempt, driver.holds_slot) = (Some(attempt), true);
                                }
                                Next::Park => (driver.holds_slot, driver.waits) = (false, true),
                                Next::Leave => driver.holds_slot = false,
                            }
                        }
                    }
                    Step::Suspend(index) => {
                        let driver = &mut drivers[index];
                        if driver.is_awake() && driver.attempt.is_some() && driver.holds_slot {
                            queue.release(&driver.parker, true);
                            driver.holds_slot = false;
                        }
                    }
                    Step::Resume(index) => {
                        let driver = &mut drivers[index];
                        if driver.is_awake() && !driver.holds_slot && let Some(attempt) = &driver.attempt {
                            queue.resume(&driver.parker, attempt);
                            driver.waits = true;
                        }
                    }
                    Step::GiveUp(index) => {
                        let driver = &mut drivers[index];
                        if driver.waits && driver.attempt.is_some() {
                            queue.release(&driver.parker, false);
                            *driver = Driven { parker: driver.parker.clone(), ..Driven::default() };
                        }
                    }
                }
                check(&queue, &mut drivers)?;
            }
            started.sort_unstable();
            started.dedup();
            prop_assert_eq!(started.len() + queue.counts().iter().sum::<usize>(), pushed, "each starts once");
        }
    }

    /// The attempt that may start first, whatever the slots.
    fn first_in_order(queue: &RunQueue) -> Option<u64> {
        let state = queue.state.lock();
        for p in (0..Priority::COUNT).rev() {
            if let Some(first) = state.attempts[p].front() {
                return Some(first.ticket().fence);
            }
            if p > 0 && state.held_back[p] {
                return None;
            }
        }
        None
    }

    fn check(queue: &RunQueue, drivers: &mut [Driven]) -> Result<(), TestCaseError> {
        let state = queue.state.lock();
        let mut taken = 0;
        let mut promised = 0;
        for driver in drivers {
            let parking = state_of(&driver.parker);
            let granted = matches!(parking, ParkState::Starting | ParkState::Resuming);
            taken += usize::from(driver.holds_slot || granted);
            promised += usize::from(parking == ParkState::Starting);
        }
        prop_assert_eq!((state.taken, state.promised), (taken, promised));
        // No driver waits for a slot that is free, unless enough are on their way.
        let turn = state.turn(state.promised, !state.idle.is_empty());
        let enough_wake = matches!(turn, Some(Turn::Start(_))) && state.promised >= queue.waking_max;
        prop_assert!(turn.is_none() || enough_wake);
        prop_assert!(state.promised <= queue.waking_max);
        Ok(())
    }

    /// A start, with the logical time before and after the call that made it.
    struct Start {
        fence: u64,
        p: usize,
        before: u64,
        after: u64,
    }

    /// Two threads push attempts of all priorities while drivers start them. Returns the starts, and for each fence the
    /// time at which its push had returned.
    fn push_and_start_concurrently(drivers: usize, total: u64) -> (Vec<Start>, Vec<u64>) {
        let (queue, clock, left) = (queue(drivers), AtomicU64::new(1), AtomicU64::new(total));
        let pushed: Vec<AtomicU64> = (0..total).map(|_| AtomicU64::new(0)).collect();
        let push = |pusher: u64| {
            for first in (pusher * 8..total).step_by(16) {
                let fences = first..(first + 8).min(total);
                let priority = Priority::DESCENDING[usize::try_from(first / 8 % 7 % 4).unwrap_or(0)];
                queue.push(fences.clone().map(|n| attempt(n, priority)), NONE);
                let at = clock.fetch_add(1, SeqCst);
                fences.for_each(|n| pushed[usize::try_from(n).unwrap_or(0)].store(at, SeqCst));
            }
        };
        let drive = |index: usize| {
            let (parker, mut holds_slot, mut starts) = (driver(), false, Vec::new());
            while left.load(SeqCst) > 0 {
                let before = clock.fetch_add(1, SeqCst);
                let next = queue.next(index, &parker, holds_slot);
                let after = clock.fetch_add(1, SeqCst);
                holds_slot = matches!(next, Next::Start(_));
                let Next::Start(attempt) = next else {
                    std::thread::yield_now();
                    continue;
                };
                left.fetch_sub(1, SeqCst);
                let p = attempt.spec().options.priority.index();
                starts.push(Start { fence: attempt.ticket().fence, p, before, after });
            }
            starts
        };
        let starts = std::thread::scope(|scope| {
            let (push, drive) = (&push, &drive);
            let threads: Vec<_> = (0..drivers).map(|index| scope.spawn(move || drive(index))).collect();
            (0..2).for_each(|pusher| drop(scope.spawn(move || push(pusher))));
            threads.into_iter().flat_map(|thread| thread.join().expect("no driver panics")).collect()
        });
        (starts, pushed.into_iter().map(AtomicU64::into_inner).collect())
    }

    #[test]
    fn no_attempt_starts_while_a_more_urgent_one_pushed_earlier_is_queued() {
        const TOTAL: u64 = 20_000;
        let (starts, pushed) = push_and_start_concurrently(6, TOTAL);
        let mut fences: Vec<_> = starts.iter().map(|start| start.fence).collect();
        fences.sort_unstable();
        assert_eq!(fences, (0..TOTAL).collect::<Vec<_>>(), "each starts once");
        // Two pushes at the same time are in either order, so attempts are counted instead of compared one by one: of
        // each higher priority, at least as many starts must have begun as attempts were pushed.
        for urgent in 1..Priority::COUNT {
            let urgent_starts = || starts.iter().filter(|start| start.p == urgent);
            let mut pushed: Vec<_> =
                urgent_starts().map(|start| pushed[usize::try_from(start.fence).unwrap_or(0)]).collect();
            let mut begun: Vec<_> = urgent_starts().map(|start| start.before).collect();
            pushed.sort_unstable();
            begun.sort_unstable();
            for start in starts.iter().filter(|start| start.p < urgent) {
                let waiting = pushed.partition_point(|at| *at < start.before);
                let begun = begun.partition_point(|at| *at < start.after);
                let fence = start.fence;
                assert!(waiting <= begun, "{fence} started before {} of priority {urgent}", waiting - begun);
            }
        }
    }
}
