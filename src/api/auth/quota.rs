//! Quotas: what one identity may have in progress, and how fast it may submit.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;

use crate::model::key_file::KeyLimits;
use crate::model::share::Holdings;
use crate::model::{Coded, Details, ErrorCode, Namespace, Revision, Sharer, TaskSpec};

use super::in_use::InUse;
use super::refusal_budget::RefusalBudget;

/// Limits of each identity; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitOptions {
    /// Average number of tasks submitted per second.
    pub submit_rate: Option<NonZeroU32>,
    /// Tasks submitted at once, such as the largest batch; `None`: ten seconds' worth of `submit_rate`.
    pub submit_burst: Option<NonZeroU32>,
    /// Unfinished tasks.
    pub live_tasks: Option<u64>,
    /// Bytes of the payloads of unfinished tasks.
    pub live_payload_bytes: Option<u64>,
    /// Open watches, waits and streams.
    pub open_streams: Option<usize>,
}

impl LimitOptions {
    /// Whether unfinished tasks have to be counted.
    pub fn counts_tasks(&self) -> bool {
        self.live_tasks.is_some() || self.live_payload_bytes.is_some()
    }

    /// These limits, replaced by those of a key where it has its own.
    #[must_use]
    pub fn with(&self, own: &KeyLimits) -> Self {
        Self {
            submit_rate: own.submit_rate.or(self.submit_rate),
            // The general burst may not suit the key's own rate.
            submit_burst: own.submit_burst.or(self.submit_burst.filter(|_| own.submit_rate.is_none())),
            live_tasks: own.live_tasks.map(|tasks| tasks.get().into()).or(self.live_tasks),
            live_payload_bytes: own.live_payload_bytes.map(NonZeroU64::get).or(self.live_payload_bytes),
            open_streams: own.open_streams.map(|streams| streams.get() as usize).or(self.open_streams),
        }
    }
}

/// What one identity has in progress. Shared by all its tokens and connections.
pub struct Usage {
    name: Box<str>,
    bounds: ArcSwap<Bounds>,
    tasks: AtomicU64,
    bytes: AtomicU64,
    streams: AtomicUsize,
    /// Slots of calls, and memory of requests.
    holdings: Arc<Holdings>,
    /// The same of all callers of a namespace.
    by_namespace: Arc<InUse<Namespace, Holdings>>,
    committed: Option<mpsc::UnboundedSender<CommittedReservation>>,
    /// For the audit log.
    pub refusals: RefusalBudget,
}

struct Bounds {
    limits: LimitOptions,
    /// The rate limiter and its burst.
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

/// One open stream; counted until it is dropped.
pub struct StreamSlot(Arc<Usage>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reservation whose tasks are durable. The quota tracker drops it once it counts the tasks themselves.
pub struct CommittedReservation {
    /// The revision that contains the tasks.
    pub revision: Revision,
    pub _reservation: Reservation,
}

impl Usage {
    /// `committed` is the channel to the quota tracker, if there is one.
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
            holdings: Arc::default(),
            by_namespace: Arc::default(),
            committed,
            refusals: RefusalBudget::default(),
        }
    }

    /// Shares what its namespace holds with others.
    #[must_use]
    pub fn among(self, by_namespace: Arc<InUse<Namespace, Holdings>>) -> Self {
        Self { by_namespace, ..self }
    }

    pub fn sharer(&self, namespace: Option<&Namespace>) -> Arc<Sharer> {
        let namespace = namespace.map(|namespace| self.by_namespace.of(namespace));
        Arc::new(Sharer::new(self.holdings.clone(), namespace))
    }

    pub fn set_limits(&self, limits: LimitOptions) {
        if self.bounds.load().limits != limits {
            self.bounds.store(Arc::new(Bounds::new(limits)));
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts one more open stream.
    ///
    /// # Errors
    /// [`QuotaExceeded`].
    pub fn open_stream(this: &Arc<Self>) -> Result<StreamSlot, QuotaExceeded> {
        let open = this.streams.fetch_add(1, Ordering::Relaxed) + 1;
        // Dropped, and so not counted, if the limit is exceeded.
        let slot = StreamSlot(this.clone());
        match this.bounds.load().limits.open_streams {
            Some(limit) if open > limit => Err(this.exceeded("open streams", limit as u64)),
            _ => Ok(slot),
        }
    }

    /// Reserves quota for these tasks, all or nothing; `None` if tasks are not limited.
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
        // Dropped, and so released, if a limit is exceeded.
        let reservation = Reservation { usage: this.clone(), tasks, bytes };
        let exceeded =
            |limit: Option<u64>, count: &AtomicU64| limit.filter(|limit| count.load(Ordering::Relaxed) > *limit);
        if let Some(limit) = exceeded(limits.live_tasks, &this.tasks) {
            return Err(this.exceeded("unfinished tasks", limit));
        }
        if let Some(limit) = exceeded(limits.live_payload_bytes, &this.bytes).filter(|_| bytes > 0) {
            return Err(this.exceeded("payload bytes of unfinished tasks", limit));
        }
        Ok(Some(reservation))
    }

    pub fn add(&self, tasks: u64, bytes: u64) {
        self.tasks.fetch_add(tasks, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn remove(&self, tasks: u64, bytes: u64) {
        self.tasks.fetch_sub(tasks, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Unfinished and reserved tasks, and their payload bytes.
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
                let what = "tasks submitted per second";
                Err(QuotaExceeded {
                    code: ErrorCode::RateLimited,
                    identity: self.name.clone(),
                    what,
                    limit,
                    wait: Some(wait),
                })
            }
            // Larger than the burst: a retry cannot succeed.
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

/// Quota that a submission has reserved; released when it is dropped.
pub struct Reservation {
    usage: Arc<Usage>,
    tasks: u64,
    bytes: u64,
}

impl Reservation {
    /// The tasks are durable at `revision`. Hands the reservation to the quota tracker.
    pub fn commit(self, revision: Revision) {
        if let Some(tracker) = self.usage.committed.clone() {
            // Fails only if the tracker has ended, and then quotas no longer matter.
            let _ = tracker.send(CommittedReservation { revision, _reservation: self });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.usage.remove(self.tasks, self.bytes);
    }
}

/// The caller has reached one of its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quota of {identity} exceeded: at most {limit} {what}")]
pub struct QuotaExceeded {
    code: ErrorCode,
    identity: Box<str>,
    what: &'static str,
    limit: u64,
    /// Delay after which a retry can succeed; `None`: never.
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
mod tests {
    use super::super::test_support::spec;
    use super::*;

    fn some(number: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(number)
    }

    #[test]
    fn exceeding_the_rate_returns_a_retry_delay() {
        let limits = LimitOptions { submit_rate: some(1), submit_burst: some(2), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, None));
        let specs = [spec("a", "key:ci", 0), spec("b", "key:ci", 0)];
        assert!(Usage::reserve(&usage, &specs).unwrap().is_none());
        let limited = Usage::reserve(&usage, &specs[..1]).err().unwrap();
        assert_eq!(limited.code(), ErrorCode::RateLimited);
        assert!(limited.details().retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
        assert_eq!(limited.details().quota.unwrap().0, "identity:key:ci");
    }

    #[test]
    fn a_batch_above_the_burst_returns_no_retry_delay() {
        let limits = LimitOptions { submit_rate: some(1), submit_burst: some(2), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, None));
        let three = [spec("a", "key:ci", 0), spec("b", "key:ci", 0), spec("c", "key:ci", 0)];
        let limited = Usage::reserve(&usage, &three).err().unwrap();
        assert_eq!(limited.details().retry_after, None);
        assert!(limited.to_string().contains("at most 2 tasks submitted at once"), "{limited}");
    }

    #[test]
    fn a_reservation_is_all_or_nothing() {
        let (sender, mut tracker) = mpsc::unbounded_channel();
        let limits = LimitOptions { live_tasks: Some(3), live_payload_bytes: Some(100), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, Some(sender)));
        let reservation = Usage::reserve(&usage, &[spec("a", "key:ci", 60), spec("b", "key:ci", 0)]).unwrap().unwrap();
        assert_eq!(usage.live(), (2, 60));
        let limited = Usage::reserve(&usage, &[spec("c", "key:ci", 41)]).err().unwrap();
        assert!(limited.to_string().contains("at most 100 payload bytes"), "{limited}");
        let limited = Usage::reserve(&usage, &[spec("c", "key:ci", 0), spec("d", "key:ci", 0)]).err().unwrap();
        assert_eq!((limited.code(), limited.limit), (ErrorCode::QuotaExceeded, 3));
        assert_eq!(usage.live(), (2, 60));
        reservation.commit(Revision(7));
        assert_eq!(usage.live(), (2, 60), "reserved until the tracker counts the tasks themselves");
        assert_eq!(tracker.try_recv().unwrap().revision, Revision(7));
        assert_eq!(usage.live(), (0, 0));
    }

    #[test]
    fn a_stream_counts_until_it_is_dropped() {
        let limits = LimitOptions { open_streams: Some(1), ..LimitOptions::default() };
        let usage = Arc::new(Usage::new("key:ci", &limits, None));
        let first = Usage::open_stream(&usage).unwrap();
        assert!(Usage::open_stream(&usage).is_err());
        drop(first);
        let _first = Usage::open_stream(&usage).ok().unwrap();
        assert!(Usage::open_stream(&usage).is_err());
        usage.set_limits(LimitOptions::default());
        assert!(Usage::open_stream(&usage).is_ok());
    }

    #[test]
    fn the_limits_of_a_key_replace_the_general_ones() {
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
        assert_eq!((limits.submit_rate, limits.submit_burst), (some(100), None), "the default burst of its own rate");
        assert_eq!((limits.live_tasks, limits.open_streams), (Some(7), Some(1)));
        let usage = Arc::new(Usage::new("key:ci", &general, None));
        assert!(Usage::reserve(&usage, &vec![spec("a", "key:ci", 0); 10]).is_err());
        usage.set_limits(LimitOptions { live_tasks: Some(20), ..limits });
        assert!(Usage::reserve(&usage, &vec![spec("a", "key:ci", 0); 10]).is_ok());
    }
}
