//! Whether the server gets on: signs of life of its parts, and a watchdog that misses them.
//!
//! The scheduler's loop beats with every round, at least once a second. A thread of the runtime that
//! runs something for too long is seen by its counters: one that is at work and has neither parked nor
//! finished a stretch of work stands still. The watchdog has a thread of its own, so nothing that it
//! watches can hold it up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use tokio::runtime::RuntimeMetrics;
use tokio::sync::watch;
use tokio::time::Instant;

/// What the watchdog watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The scheduler's loop.
    Scheduler,
    /// The threads of the asynchronous runtime; the one that has stood still longest counts.
    Runtime,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Scheduler, Self::Runtime];

    /// Its name in metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Runtime => "runtime",
        }
    }
}

/// Where the server stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The store is read; nothing is accepted yet.
    Recovering,
    /// It takes work.
    Serving,
    /// It ends what runs and takes nothing new.
    Draining,
}

/// Why the server should get no work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The store is being read.
    Recovering,
    /// The server is ending.
    Draining,
    /// The store refuses writes.
    StoreRefuses,
    /// The tables for questions cannot be written; what asks them is refused.
    ProjectionRefuses,
    /// A part has shown no sign of life for longer than the limit.
    Stalled(Component),
}

impl NotReady {
    /// A word for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Draining => "draining",
            Self::StoreRefuses => "store_refuses_writes",
            Self::ProjectionRefuses => "projection_refuses_writes",
            Self::Stalled(Component::Scheduler) => "scheduler_stalled",
            Self::Stalled(Component::Runtime) => "runtime_stalled",
        }
    }
}

/// Signs of life, told by the parts and read by probes. Nobody waits for anybody.
pub struct Liveness {
    origin: Instant,
    phase: watch::Sender<Phase>,
    store_refuses: AtomicBool,
    /// Milliseconds after `origin` of the scheduler's last beat, plus one; 0: it has not begun, or has ended.
    beat: AtomicU64,
    projection: OnceLock<Trouble>,
    parts: [PartState; Component::ALL.len()],
}

/// Says whether a part is in trouble, at once.
type Trouble = Box<dyn Fn() -> bool + Send + Sync>;

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liveness")
            .field("phase", &self.phase())
            .field("unready", &self.not_ready_reasons())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct PartState {
    silence_ms: AtomicU64,
    stalled: AtomicBool,
    stalls: AtomicU64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            phase: watch::Sender::new(Phase::Recovering),
            store_refuses: AtomicBool::new(false),
            beat: AtomicU64::new(0),
            projection: OnceLock::new(),
            parts: Default::default(),
        }
    }
}

impl Liveness {
    /// The server has come so far; it never goes back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| std::mem::replace(now, phase.max(*now)) != *now);
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// To wait for the next phase.
    pub fn subscribe_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The scheduler's loop gets on; and whether the store refuses writes.
    pub fn heartbeat(&self, store_refuses: bool) {
        self.beat.store(1 + millis(self.origin.elapsed()), Ordering::Release);
        self.store_refuses.store(store_refuses, Ordering::Release);
    }

    /// The scheduler's loop has ended in an orderly way: it is not missed.
    pub fn stop_heartbeat(&self) {
        self.beat.store(0, Ordering::Release);
    }

    /// Whether the store refuses writes.
    pub fn store_refuses(&self) -> bool {
        self.store_refuses.load(Ordering::Acquire)
    }

    /// How to learn whether the tables for questions are in trouble; only the first one told is asked.
    pub fn set_projection_fault_check(&self, trouble: impl Fn() -> bool + Send + Sync + 'static) {
        // A server has one projection.
        let _ = self.projection.set(Box::new(trouble));
    }

    /// Whether the tables for questions cannot be written.
    pub fn projection_refuses(&self) -> bool {
        self.projection.get().is_some_and(|trouble| trouble())
    }

    /// Time since the server was started.
    pub fn uptime(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Every reason to get no work now; none: ready.
    pub fn not_ready_reasons(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        match self.phase() {
            Phase::Recovering => reasons.push(NotReady::Recovering),
            Phase::Serving => {}
            Phase::Draining => reasons.push(NotReady::Draining),
        }
        if self.store_refuses() {
            reasons.push(NotReady::StoreRefuses);
        }
        if self.projection_refuses() {
            reasons.push(NotReady::ProjectionRefuses);
        }
        let stalled =
            Component::ALL.into_iter().filter(|part| self.parts[*part as usize].stalled.load(Ordering::Acquire));
        reasons.extend(stalled.map(NotReady::Stalled));
        reasons
    }

    /// Whether the server should get work.
    pub fn is_ready(&self) -> bool {
        self.not_ready_reasons().is_empty()
    }

    /// Time since a part showed a sign of life when the watchdog last looked, and how often it stalled.
    pub fn stall_status(&self, part: Component) -> (Duration, u64) {
        let state = &self.parts[part as usize];
        let silence = Duration::from_millis(state.silence_ms.load(Ordering::Acquire));
        (silence, state.stalls.load(Ordering::Acquire))
    }

    /// Notes how long a part has been silent; says when that begins or ceases to be too long.
    fn judge(&self, part: Component, silence: Duration, limit: Duration) {
        let state = &self.parts[part as usize];
        state.silence_ms.store(millis(silence), Ordering::Release);
        let stalled = silence > limit;
        if state.stalled.swap(stalled, Ordering::AcqRel) == stalled {
            return;
        }
        let name = part.name();
        if stalled {
            state.stalls.fetch_add(1, Ordering::AcqRel);
            tracing::error!(part = name, ?silence, ?limit, "a part of the server has stalled; the server is not ready");
        } else {
            tracing::info!(part = name, "a part of the server that had stalled gets on again");
        }
    }

    fn scheduler_silence(&self, now: Instant) -> Duration {
        match self.beat.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            beat => now.saturating_duration_since(self.origin + Duration::from_millis(beat - 1)),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What one thread of the runtime looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadSign {
    /// Goes up when it parks, and when it is woken: odd while it sleeps.
    parks: u64,
    /// Goes up after a stretch of work.
    busy: Duration,
}

/// Remembers since when each thread of the runtime has looked the same.
#[derive(Default)]
struct Threads(Vec<(ThreadSign, Instant)>);

impl Threads {
    /// How long the one that has stood still longest has done so.
    fn silence(&mut self, now: Instant, signs: impl Iterator<Item = ThreadSign>) -> Duration {
        let mut longest = Duration::ZERO;
        for (index, sign) in signs.enumerate() {
            match self.0.get_mut(index) {
                None => self.0.push((sign, now)),
                Some((before, since)) => {
                    let sleeps = sign.parks % 2 == 1;
                    if *before != sign || sleeps {
                        (*before, *since) = (sign, now);
                    }
                    longest = longest.max(now.saturating_duration_since(*since));
                }
            }
        }
        longest
    }
}

/// The watchdog's own thread; ends when this is dropped.
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches until it is dropped. A part that is silent for longer than `limit` makes the server unready.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(liveness: Arc<Liveness>, runtime: RuntimeMetrics, limit: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let interval = (limit / 8).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let watch = move || {
            let mut threads = Threads::default();
            let mut looked = Instant::now();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                // The whole process was held up, such as by a paused machine: nobody had a chance.
                let held_up = now.duration_since(looked) > interval + limit / 2;
                looked = now;
                if held_up {
                    threads = Threads::default();
                    continue;
                }
                let sign = |w| ThreadSign {
                    parks: runtime.worker_park_unpark_count(w),
                    busy: runtime.worker_total_busy_duration(w),
                };
                let silence = threads.silence(now, (0..runtime.num_workers()).map(sign));
                liveness.judge(Component::Runtime, silence, limit);
                liveness.judge(Component::Scheduler, liveness.scheduler_silence(now), limit);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by its hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < end, "never {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn a_loop_that_stops_beating_makes_the_server_unready_until_it_beats_again() {
        let (runtime, liveness) = (runtime(), Arc::new(Liveness::default()));
        liveness.enter(Phase::Serving);
        liveness.heartbeat(false);
        let _watchdog = Watchdog::start(liveness.clone(), runtime.metrics(), LIMIT).unwrap();
        assert_eq!(liveness.not_ready_reasons(), []);
        until("stalled", || liveness.not_ready_reasons() == [NotReady::Stalled(Component::Scheduler)]);
        assert_eq!(liveness.stall_status(Component::Scheduler).1, 1);
        until("ready", || {
            liveness.heartbeat(false);
            liveness.is_ready()
        });
        assert_eq!(liveness.stall_status(Component::Scheduler).1, 1, "one stall is counted once");
        liveness.stop_heartbeat();
        std::thread::sleep(2 * LIMIT);
        assert!(liveness.is_ready(), "a loop that has ended is not missed");
    }

    #[test]
    fn one_blocked_thread_of_the_runtime_is_noticed_and_idle_ones_are_not() {
        let (runtime, liveness) = (runtime(), Arc::new(Liveness::default()));
        liveness.enter(Phase::Serving);
        let _watchdog = Watchdog::start(liveness.clone(), runtime.metrics(), LIMIT).unwrap();
        std::thread::sleep(2 * LIMIT);
        assert!(liveness.is_ready(), "idle threads are well: {:?}", liveness.not_ready_reasons());
        let (release, released) = sync_channel::<()>(0);
        let blocked = runtime.spawn(async move { released.recv() });
        until("stalled", || liveness.not_ready_reasons() == [NotReady::Stalled(Component::Runtime)]);
        release.send(()).unwrap();
        runtime.block_on(blocked).unwrap().unwrap();
        until("ready", || liveness.is_ready());
    }

    #[test]
    fn a_busy_thread_that_finishes_stretches_of_work_is_well() {
        let now = Instant::now();
        let mut threads = Threads::default();
        let sign = |parks, busy| [ThreadSign { parks, busy: Duration::from_millis(busy) }].into_iter();
        assert_eq!(threads.silence(now, sign(2, 10)), Duration::ZERO);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(threads.silence(later(5), sign(2, 4_000)), Duration::ZERO, "it worked");
        assert_eq!(threads.silence(later(15), sign(2, 4_000)), Duration::from_secs(10), "it stood still");
        assert_eq!(threads.silence(later(16), sign(3, 4_000)), Duration::ZERO, "it sleeps");
        assert_eq!(threads.silence(later(60), sign(3, 4_000)), Duration::ZERO, "it still sleeps");
        assert_eq!(threads.silence(later(63), sign(4, 4_000)), Duration::ZERO, "it has just been woken");
    }

    #[test]
    fn reasons_are_all_named_and_a_phase_never_goes_back() {
        let liveness = Liveness::default();
        assert_eq!(liveness.not_ready_reasons(), [NotReady::Recovering]);
        liveness.enter(Phase::Serving);
        assert!(liveness.is_ready());
        liveness.heartbeat(true);
        liveness.enter(Phase::Draining);
        liveness.enter(Phase::Serving);
        assert_eq!(liveness.not_ready_reasons(), [NotReady::Draining, NotReady::StoreRefuses]);
        assert_eq!(NotReady::StoreRefuses.name(), "store_refuses_writes");
    }
}
