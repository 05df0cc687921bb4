//! What one identity may have under way, and how much of it a second.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;

use crate::model::key_file::KeyLimits;
use crate::model::{Coded, Details, ErrorCode, Revision, TaskSpec};

/// Bounds of every identity; `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitOptions {
    /// Tasks a second that it may submit, averaged.
    pub submit_rate: Option<NonZeroU32>,
    /// Tasks at once, such as the largest batch; `None`: ten seconds' worth.
    pub submit_burst: Option<NonZeroU32>,
    /// Tasks that have not ended.
    pub live_tasks: Option<u64>,
    /// Bytes of their payloads.
    pub live_payload_bytes: Option<u64>,
    /// Watches, waits and streams that are open.
    pub open_streams: Option<usize>,
}

impl LimitOptions {
    /// Whether somebody has to count tasks until they end.
    pub fn counts_tasks(&self) -> bool {
        self.live_tasks.is_some() || self.live_payload_bytes.is_some()
    }

    /// These, and in their place those of a key.
    #[must_use]
    pub fn with(&self, own: &KeyLimits) -> Self {
        Self {
            submit_rate: own.submit_rate.or(self.submit_rate),
            // The general burst may be far from a rate of its own.
            submit_burst: own.submit_burst.or(self.submit_burst.filter(|_| own.submit_rate.is_none())),
            live_tasks: own.live_tasks.map(|tasks| tasks.get().into()).or(self.live_tasks),
            live_payload_bytes: own.live_payload_bytes.map(NonZeroU64::get).or(self.live_payload_bytes),
            open_streams: own.open_streams.map(|streams| streams.get() as usize).or(self.open_streams),
        }
    }
}

/// What one identity has under way. Shared by all its tokens and connections.
pub struct Usage {
    name: Box<str>,
    bounds: ArcSwap<Bounds>,
    tasks: AtomicU64,
    bytes: AtomicU64,
    streams: AtomicUsize,
    committed: Option<mpsc::UnboundedSender<CommittedReservation>>,
}

/// Limits, and what the rate has left.
struct Bounds {
    limits: LimitOptions,
    rate: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
}

impl Bounds {
    fn new(limits: LimitOptions) -> Self {
        let rate = limits.submit_rate.map(|rate| {
            let burst = limits.submit_burst.unwrap_or_else(|| rate.saturating_mul(NonZeroU32::MIN.saturating_add(9)));
            (RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)), burst)
        });
        Self { limits, rate }
    }
}

/// The place of a call that lasts; given back when it is dropped.
pub struct StreamSlot(Arc<Usage>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reservation whose tasks are accepted; the ledger gives it back when it counts the tasks themselves.
pub struct CommittedReservation {
    /// When the tasks are durable.
    pub at: Revision,
    /// What is reserved.
    pub _hold: Reservation,
}

impl Usage {
    /// Public is under way. `committed` leads to the ledger, if there is one.
    pub fn new(
        name: &str,
        limits: &LimitOptions,
        committed: Option<mpsc::UnboundedSender<CommittedReservation>>,
    ) -> Self {
        Self {
            name: name.into(),
            bounds: ArcSwap::from_pointee(Bounds::new(*limits)),
            tasks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            committed,
        }
    }

    /// From now on these hold.
    pub fn bound(&self, limits: LimitOptions) {
        if self.bounds.load().limits != limits {
            self.bounds.store(Arc::new(Bounds::new(limits)));
        }
    }

    /// The identity's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A place for a call that lasts.
    ///
    /// # Errors
    /// [`QuotaExceeded`] when there is none.
    pub fn stream(this: &Arc<Self>) -> Result<StreamSlot, QuotaExceeded> {
        let open = this.streams.fetch_add(1, Ordering::Relaxed) + 1;
        // Gives it back when the bound is passed.
        let place = StreamSlot(this.clone());
        match this.bounds.load().limits.open_streams {
            Some(limit) if open > limit => Err(this.exceeded("streams that are open", limit as u64)),
            _ => Ok(place),
        }
    }

    /// Takes what these tasks need, all or nothing; `None` when nothing of it is bounded.
    ///
    /// # Errors
    /// [`QuotaExceeded`].
    pub fn reserve(this: &Arc<Self>, specs: &[TaskSpec]) -> Result<Option<Reservation>, QuotaExceeded> {
        let bounds = this.bounds.load();
        this.check_rate(&bounds, specs.len())?;
        let limits = &bounds.limits;
        if !limits.counts_tasks() {
            return Ok(None);
        }
        let (tasks, bytes) = (specs.len() as u64, specs.iter().map(|spec| spec.payload.len() as u64).sum());
        this.add(tasks, bytes);
        // Gives it back when the bound is passed.
        let hold = Reservation { usage: this.clone(), tasks, bytes };
        let over = |limit: Option<u64>, now: &AtomicU64| limit.filter(|limit| now.load(Ordering::Relaxed) > *limit);
        if let Some(limit) = over(limits.live_tasks, &this.tasks) {
            return Err(this.exceeded("tasks that have not ended", limit));
        }
        if let Some(limit) = over(limits.live_payload_bytes, &this.bytes).filter(|_| bytes > 0) {
            return Err(this.exceeded("bytes of payloads of tasks that have not ended", limit));
        }
        Ok(Some(hold))
    }

    /// Counts more.
    pub fn add(&self, tasks: u64, bytes: u64) {
        self.tasks.fetch_add(tasks, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts less.
    pub fn remove(&self, tasks: u64, bytes: u64) {
        self.tasks.fetch_sub(tasks, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tasks and bytes that count now.
    pub fn live(&self) -> (u64, u64) {
        (self.tasks.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn check_rate(&self, bounds: &Bounds, tasks: usize) -> Result<(), QuotaExceeded> {
        let Some((rate, burst)) = &bounds.rate else { return Ok(()) };
        let Some(tasks) = u32::try_from(tasks).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        let limit = u64::from(bounds.limits.submit_rate.map_or(0, NonZeroU32::get));
        match rate.check_n(tasks) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(early)) => {
                let wait = early.wait_time_from(DefaultClock::default().now()).max(Duration::from_millis(1));
                let what = "tasks submitted a second";
                Err(QuotaExceeded {
                    code: ErrorCode::RateLimited,
                    identity: self.name.clone(),
                    what,
                    limit,
                    wait: Some(wait),
                })
            }
            // Waiting does not help.
            Err(_) => {
                let (what, limit) = ("tasks submitted at once", u64::from(burst.get()));
                Err(QuotaExceeded {
                    code: ErrorCode::RateLimited,
                    identity: self.name.clone(),
                    what,
                    limit,
                    wait: None,
                })
            }
        }
    }

    fn exceeded(&self, what: &'static str, limit: u64) -> QuotaExceeded {
        let wait = Some(Duration::from_secs(1));
        QuotaExceeded { code: ErrorCode::QuotaExceeded, identity: self.name.clone(), what, limit, wait }
    }
}

/// What a submission has reserved; given back when it is dropped.
pub struct Reservation {
    usage: Arc<Usage>,
    tasks: u64,
    bytes: u64,
}

impl Reservation {
    /// The tasks are accepted and durable at that revision: the ledger takes over.
    pub fn commit(self, at: Revision) {
        if let Some(ledger) = self.usage.committed.clone() {
            // A ledger that has gone counts nothing any more.
            let _ = ledger.send(CommittedReservation { at, _hold: self });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.usage.remove(self.tasks, self.bytes);
    }
}

/// The caller has too much under way, or does too much a second.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{identity} is at its limit: at most {limit} {what}")]
pub struct QuotaExceeded {
    code: ErrorCode,
    identity: Box<str>,
    what: &'static str,
    limit: u64,
    wait: Option<Duration>,
}

impl Coded for QuotaExceeded {
    fn code(&self) -> ErrorCode {
        self.code
    }

    fn details(&self) -> Details {
        Details {
            metadata: vec![("identity", self.identity.to_string()), ("limit", self.limit.to_string())],
            retry_after: self.wait,
            quota: Some((format!("identity:{}", self.identity), format!("at most {} {}", self.limit, self.what))),
            ..Details::default()
        }
    }
}

#[cfg(test)]
pub mod tests {

    use super::*;
    use crate::model::{TaskId, TaskOptions};

    pub fn spec(id: &str, by: &str, payload: usize) -> TaskSpec {
        TaskSpec {
            id: TaskId::parse(id).unwrap(),
            options: Arc::new(TaskOptions { submitted_by: by.into(), ..TaskOptions::sample() }),
            payload: vec![0; payload].into(),
            extras: None,
        }
    }

    fn some(number: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(number)
    }

    #[test]
    fn more_a_second_than_allowed_is_told_when_to_come_back_and_a_batch_beyond_the_burst_never_to() {
        let limits = LimitOptions { submit_rate: some(1), submit_burst: some(2), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, None));
        let specs = [spec("a", "key:ci", 0), spec("b", "key:ci", 0)];
        assert!(Usage::reserve(&usage, &specs).unwrap().is_none());
        let limited = Usage::reserve(&usage, &specs[..1]).err().unwrap();
        assert_eq!(limited.code(), ErrorCode::RateLimited);
        assert!(limited.details().retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
        assert_eq!(limited.details().quota.unwrap().0, "identity:key:ci");
        let three = [spec("a", "key:ci", 0), spec("b", "key:ci", 0), spec("c", "key:ci", 0)];
        let limited = Usage::reserve(&usage, &three).err().unwrap();
        assert_eq!(limited.details().retry_after, None);
        assert!(limited.to_string().contains("at most 2 tasks submitted at once"), "{limited}");
    }

    #[test]
    fn a_submission_takes_all_it_needs_or_nothing_and_gives_back_what_was_refused() {
        let (sender, mut ledger) = mpsc::unbounded_channel();
        let limits = LimitOptions { live_tasks: Some(3), live_payload_bytes: Some(100), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, Some(sender)));
        let hold = Usage::reserve(&usage, &[spec("a", "key:ci", 60), spec("b", "key:ci", 0)]).unwrap().unwrap();
        assert_eq!(usage.live(), (2, 60));
        let limited = Usage::reserve(&usage, &[spec("c", "key:ci", 41)]).err().unwrap();
        assert!(limited.to_string().contains("at most 100 bytes"), "{limited}");
        let limited = Usage::reserve(&usage, &[spec("c", "key:ci", 0), spec("d", "key:ci", 0)]).err().unwrap();
        assert_eq!((limited.code(), limited.limit), (ErrorCode::QuotaExceeded, 3));
        assert_eq!(usage.live(), (2, 60));
        hold.commit(Revision(7));
        assert_eq!(usage.live(), (2, 60), "held until the ledger counts the tasks themselves");
        assert_eq!(ledger.try_recv().unwrap().at, Revision(7));
        assert_eq!(usage.live(), (0, 0));
    }

    #[test]
    fn streams_are_counted_until_they_end() {
        let limits = LimitOptions { open_streams: Some(1), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, None));
        let first = Usage::stream(&usage).unwrap();
        assert!(Usage::stream(&usage).is_err());
        drop(first);
        let _first = Usage::stream(&usage).ok().unwrap();
        assert!(Usage::stream(&usage).is_err());
        usage.bound(LimitOptions::default());
        assert!(Usage::stream(&usage).is_ok());
    }

    #[test]
    fn the_limits_of_a_key_take_the_place_of_the_general_ones() {
        let general = LimitOptions {
            submit_rate: some(5),
            submit_burst: some(9),
            live_tasks: Some(3),
            live_payload_bytes: None,
            open_streams: Some(1),
        };
        assert_eq!(general.with(&KeyLimits::default()), general);
        let own = KeyLimits { submit_rate: some(100), live_tasks: some(7), ..KeyLimits::default() };
        let limits = general.with(&own);
        assert_eq!((limits.submit_rate, limits.submit_burst), (some(100), None), "its own ten seconds' worth");
        assert_eq!((limits.live_tasks, limits.open_streams), (Some(7), Some(1)));
        let usage = Arc::new(Usage::new("key:ci", &general, None));
        assert!(Usage::reserve(&usage, &vec![spec("a", "key:ci", 0); 10]).is_err());
        usage.bound(LimitOptions { live_tasks: Some(20), ..limits });
        assert!(Usage::reserve(&usage, &vec![spec("a", "key:ci", 0); 10]).is_ok());
    }
}
