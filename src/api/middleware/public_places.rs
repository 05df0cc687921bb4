//! Places of calls that need no token: separate from those of other calls, so that they cost nothing that others need.
//!
//! When all places are taken, a further call takes that of the oldest one. A health check that is complete at once is
//! answered, however many others wait for their requests.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Status;

use crate::api::status::{self, EdgeError};
use crate::model::ErrorCode;

/// Bytes of a request.
pub const PUBLIC_BYTES_MAX: usize = 4 << 10;
/// Health checks at once. Each ends as soon as its request is complete.
const CHECKS: usize = 256;
/// Other public calls at once: watches, of which each client may have one, and those of KEDA on the health port.
const OTHERS: usize = 4_096;
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Cheap to clone; clones share the places.
#[derive(Clone)]
pub struct PublicPlaces {
    /// Separate, so that open watches and checks do not end each other.
    checks: Arc<Places>,
    others: Arc<Places>,
}

impl Default for PublicPlaces {
    fn default() -> Self {
        let places = |max| Arc::new(Places { max, taken: Mutex::default() });
        Self { checks: places(CHECKS), others: places(OTHERS) }
    }
}

impl PublicPlaces {
    pub fn enter(&self, path: &str) -> PublicPlace {
        Places::enter(if path == CHECK { &self.checks } else { &self.others })
    }
}

struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// By age. Dropping the sender ends the call.
    open: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Places {
    fn enter(self: &Arc<Self>) -> PublicPlace {
        let (open, ended) = oneshot::channel();
        let mut taken = self.taken.lock();
        let number = taken.next;
        taken.next += 1;
        taken.open.insert(number, open);
        if taken.open.len() > self.max {
            taken.open.pop_first();
        }
        PublicPlace { places: self.clone(), number, ended }
    }
}

/// One place, returned when it is dropped.
pub struct PublicPlace {
    places: Arc<Places>,
    number: u64,
    ended: oneshot::Receiver<()>,
}

impl PublicPlace {
    /// Ready with OVERLOADED when the place is taken away.
    pub fn poll_taken(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        Pin::new(&mut self.ended).poll(context).map(|_| {
            let message = "too many calls without a token are open, and this was the oldest".to_owned();
            status::to_status(&EdgeError { code: ErrorCode::Overloaded, message })
        })
    }

    pub async fn taken(&mut self) -> Status {
        std::future::poll_fn(|context| self.poll_taken(context)).await
    }
}

impl Drop for PublicPlace {
    fn drop(&mut self) {
        self.places.taken.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tonic_types::StatusExt;

    use super::*;

    #[tokio::test]
    async fn the_newest_calls_keep_their_places() {
        let public = PublicPlaces::default();
        let mut places: Vec<_> = (0..CHECKS + 2).map(|_| public.enter(CHECK)).collect();
        let _watch = public.enter("/grpc.health.v1.Health/Watch");
        let refused = places[1].taken().await;
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        let is_taken = |place: &mut PublicPlace| place.taken().now_or_never().is_some();
        assert_eq!(places.iter_mut().skip(2).filter_map(|place| is_taken(place).then_some(())).count(), 0);
        places.pop();
        places.push(public.enter(CHECK));
        assert!(!is_taken(&mut places[2]), "a returned place is free");
    }
}
