//! Pages for scrapers: one is made at a time, however many ask.
//!
//! Making one takes a thread for blocking work, and a disk that hangs may hold it. Whoever asks meanwhile waits
//! without a thread, and all who wait share the next page: nobody gets one that was begun before they asked.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Format, Metrics};

/// The last page of each format, and when it was begun; whoever holds it is the one who makes the next.
pub(super) type Pages = Arc<Mutex<[Option<(Instant, Bytes)>; 2]>>;

impl Metrics {
    /// Everything as text for Prometheus; `None` when metrics are off or have been shut down.
    pub async fn page(&self, format: Format) -> Option<Bytes> {
        let asked = Instant::now();
        let mut pages = self.shared.pages.clone().lock_owned().await;
        let place = match format {
            Format::Prometheus => 0,
            Format::OpenMetrics => 1,
        };
        if let Some((begun, page)) = &pages[place]
            && *begun > asked
        {
            return Some(page.clone());
        }
        let metrics = self.clone();
        // The turn goes with the work: it lasts even when the one who asked has gone.
        let make = move || {
            let begun = Instant::now();
            let page = metrics.expose(format).map(Bytes::from);
            pages[place] = page.clone().map(|page| (begun, page));
            page
        };
        // A panic has been printed by its hook.
        tokio::task::spawn_blocking(make).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::super::{Builder, table};
    use super::*;

    #[tokio::test]
    async fn all_who_wait_share_the_next_page_and_nobody_gets_an_old_one() {
        let metrics = Builder::new(opentelemetry_sdk::Resource::builder_empty().build()).build();
        let (begun, wait_for_begun) = sync_channel(8);
        let (release, released) = sync_channel::<()>(8);
        let released = parking_lot::Mutex::new(released);
        let made = AtomicU64::new(0);
        metrics.instruments().observe(&table::WATCHERS, move |o| {
            begun.send(()).unwrap();
            released.lock().recv().unwrap();
            o.count(1 + made.fetch_add(1, Ordering::Relaxed), &[]);
        });
        let shows = |page: Option<Bytes>, number: u64| {
            let text = String::from_utf8(page.unwrap().to_vec()).unwrap();
            let line = format!("\n{} {number}\n", table::WATCHERS.prometheus());
            assert!(text.contains(&line), "{number}: {text}");
        };
        let ask = || {
            let metrics = metrics.clone();
            async move { metrics.page(Format::Prometheus).await }
        };
        let first = tokio::spawn(ask());
        let _begun =
            tokio::task::spawn_blocking(move || wait_for_begun.recv().map(|()| wait_for_begun)).await.unwrap().unwrap();
        // One is being made. Of those who come now one goes away again, as if its connection were lost.
        let gone = tokio::spawn(ask());
        let mut waiting: Vec<_> = (0..1_000).map(|_| Box::pin(ask())).collect();
        tokio::task::yield_now().await;
        for each in &mut waiting {
            assert!(futures_util::poll!(each).is_pending());
        }
        gone.abort();
        first.abort();
        // Enough for whoever makes another one.
        for _ in 0..8 {
            release.send(()).unwrap();
        }
        for page in futures_util::future::join_all(waiting).await {
            shows(page, 2);
        }
        shows(ask().await, 3);
        assert_eq!(metrics.page(Format::OpenMetrics).await.map(|page| page.ends_with(b"# EOF\n")), Some(true));
    }

    #[tokio::test]
    async fn metrics_that_are_off_have_no_page() {
        assert_eq!(Metrics::off().page(Format::Prometheus).await, None);
    }
}
