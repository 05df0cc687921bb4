//! Liveness and readiness of the server, and a watchdog that detects stalls.
//!
//! The scheduler's loop sends a heartbeat with every round, at least once a second. A runtime thread that blocks is
//! detected by its counters: it is awake, but has neither parked nor finished polling a task. The watchdog has
//! a separate thread, so a stalled component cannot stall it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use tokio::runtime::RuntimeMetrics;
use tokio::sync::watch;
use tokio::time::Instant;

use super::panics;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Scheduler,
    /// The threads of the asynchronous runtime; the one that is stalled longest counts.
    Runtime,
}

impl Component {
    pub const ALL: [Self; 2] = [Self::Scheduler, Self::Runtime];

    /// As in metrics and health responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Runtime => "runtime",
        }
    }
}

/// Phases follow each other in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The store is being read; no connections are accepted.
    Recovering,
    Serving,
    /// Ends running tasks and accepts no new ones.
    Draining,
}

/// A reason why the server should get no work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    Recovering,
    Draining,
    StoreRefuses,
    /// The projection cannot be written; queries are refused.
    ProjectionRefuses,
    /// The component has made no progress for longer than the limit.
    Stalled(Component),
}

impl NotReady {
    /// As in health responses.
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

/// Written by the components and read by probes, without waiting.
pub struct Liveness {
    origin: Instant,
    phase: watch::Sender<Phase>,
    store_refuses: AtomicBool,
    /// Milliseconds between `origin` and the last heartbeat of the scheduler, plus one; 0: not running.
    heartbeat: AtomicU64,
    projection_fault: OnceLock<FaultCheck>,
    components: [ComponentState; Component::ALL.len()],
}

type FaultCheck = Box<dyn Fn() -> bool + Send + Sync>;

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liveness")
            .field("phase", &self.phase())
            .field("not_ready", &self.not_ready_reasons())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct ComponentState {
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
            heartbeat: AtomicU64::new(0),
            projection_fault: OnceLock::new(),
            components: Default::default(),
        }
    }
}

impl Liveness {
    /// Enters a phase. An earlier phase than the current one is ignored.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| std::mem::replace(now, phase.max(*now)) != *now);
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn subscribe_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub fn heartbeat(&self, store_refuses: bool) {
        self.heartbeat.store(1 + millis(self.origin.elapsed()), Ordering::Release);
        self.store_refuses.store(store_refuses, Ordering::Release);
    }

    /// The scheduler has ended and is no longer watched.
    pub fn stop_heartbeat(&self) {
        self.heartbeat.store(0, Ordering::Release);
    }

    pub fn store_refuses(&self) -> bool {
        self.store_refuses.load(Ordering::Acquire)
    }

    /// Sets how to find out whether the projection cannot be written. Only the first call counts.
    pub fn set_projection_fault_check(&self, check: impl Fn() -> bool + Send + Sync + 'static) {
        // A server has one projection.
        let _ = self.projection_fault.set(Box::new(check));
    }

    pub fn projection_refuses(&self) -> bool {
        self.projection_fault.get().is_some_and(|check| check())
    }

    pub fn uptime(&self) -> Duration {
        self.origin.elapsed()
    }

    /// All reasons; none if the server is ready.
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
        let stalled = |component: &Component| self.components[*component as usize].stalled.load(Ordering::Acquire);
        reasons.extend(Component::ALL.into_iter().filter(stalled).map(NotReady::Stalled));
        reasons
    }

    pub fn is_ready(&self) -> bool {
        self.not_ready_reasons().is_empty()
    }

    /// Time without progress at the last check of the watchdog, and the number of stalls since the start.
    pub fn stall_status(&self, component: Component) -> (Duration, u64) {
        let state = &self.components[component as usize];
        let silence = Duration::from_millis(state.silence_ms.load(Ordering::Acquire));
        (silence, state.stalls.load(Ordering::Acquire))
    }

    /// Records the time without progress, and logs when a stall begins or ends.
    fn update(&self, component: Component, silence: Duration, limit: Duration) {
        let state = &self.components[component as usize];
        state.silence_ms.store(millis(silence), Ordering::Release);
        let stalled = silence > limit;
        if state.stalled.swap(stalled, Ordering::AcqRel) == stalled {
            return;
        }
        let name = component.name();
        if stalled {
            state.stalls.fetch_add(1, Ordering::AcqRel);
            tracing::error!(part = name, ?silence, ?limit, "a component has stalled; the server is not ready");
        } else {
            tracing::info!(part = name, "a stalled component makes progress again");
        }
    }

    fn scheduler_silence(&self, now: Instant) -> Duration {
        match self.heartbeat.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            heartbeat => now.saturating_duration_since(self.origin + Duration::from_millis(heartbeat - 1)),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadCounters {
    /// Incremented when the thread parks and when it wakes: odd while it is parked.
    parks: u64,
    /// Increases after each stretch of work.
    busy: Duration,
}

/// The last counters of each runtime thread, and since when they have been the same.
#[derive(Default)]
struct ThreadHistory(Vec<(ThreadCounters, Instant)>);

impl ThreadHistory {
    /// The longest time without progress of any thread.
    fn silence(&mut self, now: Instant, counters: impl Iterator<Item = ThreadCounters>) -> Duration {
        let mut longest = Duration::ZERO;
        for (index, current) in counters.enumerate() {
            match self.0.get_mut(index) {
                None => self.0.push((current, now)),
                Some((before, since)) => {
                    let parked = current.parks % 2 == 1;
                    if *before != current || parked {
                        (*before, *since) = (current, now);
                    }
                    longest = longest.max(now.saturating_duration_since(*since));
                }
            }
        }
        longest
    }
}

/// The thread of the watchdog; ends when this is dropped.
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// A component without progress for longer than `limit` makes the server not ready.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(liveness: Arc<Liveness>, runtime: RuntimeMetrics, limit: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let interval = (limit / 8).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let watch = move || {
            let mut threads = ThreadHistory::default();
            let mut checked = Instant::now();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                // The whole process was suspended, such as with the machine: no component could make progress.
                let suspended = now.duration_since(checked) > interval + limit / 2;
                checked = now;
                if suspended {
                    threads = ThreadHistory::default();
                    continue;
                }
                let counters = |w| ThreadCounters {
                    parks: runtime.worker_park_unpark_count(w),
                    busy: runtime.worker_total_busy_duration(w),
                };
                let silence = threads.silence(now, (0..runtime.num_workers()).map(counters));
                liveness.update(Component::Runtime, silence, limit);
                liveness.update(Component::Scheduler, liveness.scheduler_silence(now), limit);
            }
        };
        let run = move || {
            panics::mark_thread_essential();
            watch();
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < end, "never {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn missing_heartbeats_make_the_server_not_ready_until_the_next_heartbeat() {
        let (runtime, liveness) = (runtime(), Arc::new(Liveness::default()));
        liveness.enter(Phase::Serving);
        liveness.heartbeat(false);
        let _watchdog = Watchdog::start(liveness.clone(), runtime.metrics(), LIMIT).unwrap();
        assert_eq!(liveness.not_ready_reasons(), []);
        eventually("stalled", || liveness.not_ready_reasons() == [NotReady::Stalled(Component::Scheduler)]);
        assert_eq!(liveness.stall_status(Component::Scheduler).1, 1);
        eventually("ready", || {
            liveness.heartbeat(false);
            liveness.is_ready()
        });
        assert_eq!(liveness.stall_status(Component::Scheduler).1, 1, "one stall is counted once");
        liveness.stop_heartbeat();
        std::thread::sleep(2 * LIMIT);
        assert!(liveness.is_ready(), "a scheduler that has ended is not watched");
    }

    #[test]
    fn a_blocked_runtime_thread_is_detected_and_idle_threads_are_not() {
        let (runtime, liveness) = (runtime(), Arc::new(Liveness::default()));
        liveness.enter(Phase::Serving);
        let _watchdog = Watchdog::start(liveness.clone(), runtime.metrics(), LIMIT).unwrap();
        std::thread::sleep(2 * LIMIT);
        assert!(liveness.is_ready(), "idle threads are stalled: {:?}", liveness.not_ready_reasons());
        let (release, released) = sync_channel::<()>(0);
        let blocked = runtime.spawn(async move { released.recv() });
        eventually("stalled", || liveness.not_ready_reasons() == [NotReady::Stalled(Component::Runtime)]);
        release.send(()).unwrap();
        runtime.block_on(blocked).unwrap().unwrap();
        eventually("ready", || liveness.is_ready());
    }

    #[test]
    fn a_busy_thread_that_finishes_stretches_of_work_is_not_stalled() {
        let now = Instant::now();
        let mut threads = ThreadHistory::default();
        let counters = |parks, busy| [ThreadCounters { parks, busy: Duration::from_millis(busy) }].into_iter();
        assert_eq!(threads.silence(now, counters(2, 10)), Duration::ZERO);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(threads.silence(later(5), counters(2, 4_000)), Duration::ZERO, "it worked");
        assert_eq!(threads.silence(later(15), counters(2, 4_000)), Duration::from_secs(10), "no progress");
        assert_eq!(threads.silence(later(16), counters(3, 4_000)), Duration::ZERO, "parked");
        assert_eq!(threads.silence(later(60), counters(3, 4_000)), Duration::ZERO, "still parked");
        assert_eq!(threads.silence(later(63), counters(4, 4_000)), Duration::ZERO, "just woken");
    }

    #[test]
    fn all_reasons_are_returned_and_a_phase_is_never_entered_again() {
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
