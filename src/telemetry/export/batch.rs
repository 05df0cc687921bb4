//! A bounded queue in front of an exporter.
//!
//! Whoever has something to tell never waits: what does not fit is dropped and counted. One task of the
//! exporters' own runtime gathers batches and sends them, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_sdk::error::OTelSdkResult;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::settings::{Batching, Signal};

/// What became of one kind of telemetry since the start.
#[derive(Debug)]
pub struct Counts {
    /// Which kind.
    pub signal: Signal,
    exported: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
    /// Why the last call failed, where the library does not tell.
    why: Mutex<Option<String>>,
}

/// One reading of [`Counts`]; items are spans, log records, or exports of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The collector took them.
    pub exported: u64,
    /// Dropped, because the queue was full.
    pub queue_full: u64,
    /// Dropped, because the collector did not take them in time.
    pub failed: u64,
}

impl Counts {
    pub(super) fn new(signal: Signal) -> Self {
        let zero = AtomicU64::default;
        Self { signal, exported: zero(), queue_full: zero(), failed: zero(), why: Mutex::new(None) }
    }

    /// How it stands.
    pub fn tally(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally { exported: read(&self.exported), queue_full: read(&self.queue_full), failed: read(&self.failed) }
    }

    fn dropped(&self) {
        if self.queue_full.fetch_add(1, Ordering::Relaxed).is_multiple_of(1 << 16) {
            tracing::warn!(signal = self.signal.name(), "telemetry is dropped: its queue is full");
        }
    }

    /// Notes why a call failed, if it did, for the end of its export.
    pub(super) fn note(&self, why: Option<String>) {
        *self.why.lock() = why;
    }

    /// Notes how an export of so many items ended.
    pub(super) fn settle(&self, items: u64, result: &OTelSdkResult) {
        match result {
            Ok(()) => drop(self.exported.fetch_add(items, Ordering::Relaxed)),
            Err(error) => {
                self.failed.fetch_add(items, Ordering::Relaxed);
                let error = self.why.lock().take().map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
                tracing::warn!(
                    signal = self.signal.name(),
                    items,
                    error,
                    "telemetry is dropped: it could not be exported"
                );
            }
        }
    }
}

/// Sends batches somewhere.
pub(super) trait Sink<T>: Send + Sync + 'static {
    /// Sends one batch.
    fn send(&self, batch: Vec<T>) -> impl Future<Output = OTelSdkResult> + Send;
}

/// Takes items without waiting.
#[derive(Debug)]
pub(super) struct Queue<T> {
    sender: mpsc::Sender<T>,
    counts: Arc<Counts>,
}

impl<T: Send + 'static> Queue<T> {
    /// A queue whose items go to the sink on this runtime until it is closed.
    pub fn start(
        runtime: &tokio::runtime::Handle,
        batching: Batching,
        counts: Arc<Counts>,
        close: CancellationToken,
        sink: impl Sink<T>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, inbox) = mpsc::channel(batching.queue_max);
        let courier = Courier { inbox, batching, counts: counts.clone(), close, sink };
        (Self { sender, counts }, runtime.spawn(courier.run()))
    }

    pub fn put(&self, item: T) {
        if self.sender.try_send(item).is_err() {
            self.counts.dropped();
        }
    }
}

struct Courier<T, S> {
    inbox: mpsc::Receiver<T>,
    batching: Batching,
    counts: Arc<Counts>,
    close: CancellationToken,
    sink: S,
}

impl<T: Send + 'static, S: Sink<T>> Courier<T, S> {
    /// Ends when it is closed and the queue is empty.
    async fn run(mut self) {
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                return;
            }
            let items = batch.len() as u64;
            let result = match timeout(self.batching.timeout, self.sink.send(batch)).await {
                Ok(result) => result,
                Err(_) => Err(opentelemetry_sdk::error::OTelSdkError::Timeout(self.batching.timeout)),
            };
            self.counts.settle(items, &result);
        }
    }

    /// A full batch, or what came within the delay; empty at the end.
    async fn gather(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let most = self.batching.batch_max;
        tokio::select! {
            biased;
            _ = self.inbox.recv_many(&mut batch, most) => {}
            () = self.close.cancelled() => return batch,
        }
        let until = Instant::now() + self.batching.delay;
        while batch.len() < most {
            let room = most - batch.len();
            tokio::select! {
                biased;
                received = self.inbox.recv_many(&mut batch, room) => if received == 0 { break },
                () = tokio::time::sleep_until(until) => break,
                () = self.close.cancelled() => break,
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    const BATCHING: Batching =
        Batching { delay: Duration::from_secs(5), timeout: Duration::from_secs(30), queue_max: 8, batch_max: 4 };

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Vec<u32>>>>);

    impl Sink<u32> for Kept {
        async fn send(&self, batch: Vec<u32>) -> OTelSdkResult {
            self.0.lock().push(batch);
            Ok(())
        }
    }

    struct Dead;

    impl Sink<u32> for Dead {
        async fn send(&self, _: Vec<u32>) -> OTelSdkResult {
            std::future::pending().await
        }
    }

    struct Refusing;

    impl Sink<u32> for Refusing {
        async fn send(&self, _: Vec<u32>) -> OTelSdkResult {
            Err(OTelSdkError::InternalFailure("refused".to_owned()))
        }
    }

    fn counts() -> Arc<Counts> {
        Arc::new(Counts::new(Signal::Traces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_at_once_and_the_rest_after_the_delay() {
        let (kept, counts, close) = (Kept::default(), counts(), CancellationToken::new());
        let runtime = tokio::runtime::Handle::current();
        let (queue, courier) = Queue::start(&runtime, BATCHING, counts.clone(), close.clone(), kept.clone());
        (0..6).for_each(|item| queue.put(item));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*kept.0.lock(), [vec![0, 1, 2, 3]]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(kept.0.lock().len(), 2);
        queue.put(6);
        close.cancel();
        courier.await.unwrap();
        assert_eq!(kept.0.lock()[2], [6]);
        assert_eq!(counts.tally(), Tally { exported: 7, ..Tally::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_tells_never_waits_for_a_dead_collector_and_what_is_lost_is_counted() {
        let (counts, close) = (counts(), CancellationToken::new());
        let runtime = tokio::runtime::Handle::current();
        let (queue, _courier) = Queue::start(&runtime, BATCHING, counts.clone(), close.clone(), Dead);
        (0..20).for_each(|item| queue.put(item));
        assert_eq!(counts.tally().queue_full, 12);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(counts.tally().failed, 4);
    }

    #[tokio::test]
    async fn what_a_collector_refuses_is_counted() {
        let (counts, close) = (counts(), CancellationToken::new());
        let runtime = tokio::runtime::Handle::current();
        let (queue, courier) = Queue::start(&runtime, BATCHING, counts.clone(), close.clone(), Refusing);
        queue.put(1);
        close.cancel();
        courier.await.unwrap();
        assert_eq!(counts.tally(), Tally { failed: 1, ..Tally::default() });
    }
}
