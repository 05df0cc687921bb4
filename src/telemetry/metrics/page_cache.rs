//! Renders one page of metrics at a time, independently of the number of scrapers.
//!
//! Rendering occupies a blocking thread. Requests that arrive during that time wait without a thread and share the next page.
//! A request never gets a page that was begun before it arrived.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::exposition::Format;

/// The last page of each format. The holder of the lock makes the next page.
#[derive(Clone, Default)]
pub(super) struct PageCache(Arc<Mutex<[Option<Page>; 2]>>);

/// A page, and when its making began.
type Page = (Instant, Bytes);

impl PageCache {
    /// `None` if `make` returns none.
    pub async fn get(&self, format: Format, make: impl FnOnce() -> Option<String> + Send + 'static) -> Option<Bytes> {
        let requested = Instant::now();
        let mut pages = self.0.clone().lock_owned().await;
        let index = match format {
            Format::Prometheus => 0,
            Format::OpenMetrics => 1,
        };
        if let Some((begun, page)) = &pages[index]
            && *begun > requested
        {
            return Some(page.clone());
        }
        // The closure owns the lock guard, because it keeps running if the caller drops this future.
        let make = move || {
            let begun = Instant::now();
            let page = make().map(Bytes::from);
            pages[index] = page.clone().map(|page| (begun, page));
            page
        };
        // The panic hook has printed a panic.
        tokio::task::spawn_blocking(make).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[tokio::test]
    async fn waiting_requests_share_the_next_page() {
        let cache = PageCache::default();
        let (begun, wait_for_begun) = sync_channel(8);
        let (release, released) = sync_channel::<()>(8);
        let released = parking_lot::Mutex::new(released);
        let count = AtomicU64::new(0);
        let make = Arc::new(move || {
            begun.send(()).unwrap();
            released.lock().recv().unwrap();
            Some((1 + count.fetch_add(1, Ordering::Relaxed)).to_string())
        });
        let ask = || {
            let (cache, make) = (cache.clone(), make.clone());
            async move { cache.get(Format::Prometheus, move || make()).await }
        };
        let first = tokio::spawn(ask());
        let _begun =
            tokio::task::spawn_blocking(move || wait_for_begun.recv().map(|()| wait_for_begun)).await.unwrap().unwrap();
        // The first page is being made. Of the requests that arrive now one is aborted, as if its connection were lost.
        let aborted = tokio::spawn(ask());
        let mut waiting: Vec<_> = (0..1_000).map(|_| Box::pin(ask())).collect();
        tokio::task::yield_now().await;
        for each in &mut waiting {
            assert!(futures_util::poll!(each).is_pending());
        }
        aborted.abort();
        first.abort();
        for _ in 0..8 {
            release.send(()).unwrap();
        }
        for page in futures_util::future::join_all(waiting).await {
            assert_eq!(page.as_deref(), Some(&b"2"[..]));
        }
        assert_eq!(ask().await.as_deref(), Some(&b"3"[..]));
        assert_eq!(cache.get(Format::OpenMetrics, || None).await, None);
    }
}
