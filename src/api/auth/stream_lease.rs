//! A streaming call lasts as long as its identity is valid, and counts against the identity's stream limit.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use crate::model::Timestamp;

use super::identity::Identity;
use super::quota::{QuotaExceeded, StreamSlot, Usage};

/// Permission for one streaming call.
pub struct StreamLease {
    identity: Arc<Identity>,
    /// Time from the start of the call until the identity expires.
    remaining: Option<Duration>,
    _slot: StreamSlot,
    /// Created when the body is first polled.
    end: Option<BoxFuture<'static, ()>>,
}

impl StreamLease {
    /// # Errors
    /// [`QuotaExceeded`] if the identity has too many open streams.
    pub fn acquire(identity: &Arc<Identity>, now: Timestamp) -> Result<Self, QuotaExceeded> {
        let slot = Usage::open_stream(&identity.usage)?;
        let remaining = identity.expires_at.map(|at| at.since(now));
        Ok(Self { identity: identity.clone(), remaining, _slot: slot, end: None })
    }

    /// Ready when the identity has expired or was revoked.
    pub fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (identity, remaining) = (&self.identity, self.remaining);
        let end = self.end.get_or_insert_with(|| {
            let revoked = identity.revoked.clone().cancelled_owned();
            async move {
                match remaining {
                    Some(remaining) => drop(tokio::time::timeout(remaining, revoked).await),
                    None => revoked.await,
                }
            }
            .boxed()
        });
        end.as_mut().poll(context)
    }
}
