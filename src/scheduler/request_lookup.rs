//! Looks up request IDs in the store. Lookups that arrive while others are under way share a transaction.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::RequestName;
use crate::store::{FoundRequests, Projection, StoreError};

use super::refusal::{Internal, Refusal};

/// Threads that read at the same time.
const READERS_MAX: usize = 2;
/// Request IDs beyond which a transaction takes no further lookup.
const GROUP_MAX: usize = 4_096;

/// The lookups that wait for a thread.
#[derive(Default)]
pub(super) struct RequestLookup(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    lookups: Vec<Lookup>,
    readers: usize,
}

struct Lookup {
    names: Vec<RequestName>,
    reply: oneshot::Sender<Result<FoundRequests, StoreError>>,
}

impl RequestLookup {
    /// What the store remembers of these request IDs, in their order.
    ///
    /// # Errors
    /// `StoreUnavailable`; [`Internal`] if the store is damaged.
    pub async fn find(
        self: &Arc<Self>,
        projection: &Arc<dyn Projection>,
        names: Vec<RequestName>,
    ) -> Result<FoundRequests, Refusal> {
        let (reply, found) = oneshot::channel();
        let is_reader_missing = {
            let mut waiting = self.0.lock();
            waiting.lookups.push(Lookup { names, reply });
            let is_missing = waiting.readers < READERS_MAX;
            waiting.readers += usize::from(is_missing);
            is_missing
        };
        if is_reader_missing {
            let (reader, projection) = (Reader(Arc::clone(self)), Arc::clone(projection));
            tokio::task::spawn_blocking(move || reader.run(&*projection));
        }
        found.await.map_err(Internal::from_error)?.map_err(|error| {
            tracing::warn!(%error, "failed to look up a request id");
            Refusal::of_read(&error)
        })
    }
}

/// Counted in [`Waiting::readers`].
struct Reader(Arc<RequestLookup>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.lock().readers -= 1;
    }
}

impl Reader {
    /// Serves the waiting lookups until there are none.
    fn run(self, projection: &dyn Projection) {
        loop {
            let group = self.take();
            if group.is_empty() {
                return;
            }
            serve(group, projection);
        }
    }

    fn take(&self) -> Vec<Lookup> {
        let mut waiting = self.0.0.lock();
        let mut names = 0;
        let mut fits = |lookup: &Lookup| {
            let is_first = names == 0;
            names += lookup.names.len();
            is_first || names <= GROUP_MAX
        };
        let count = waiting.lookups.iter().map_while(|lookup| fits(lookup).then_some(())).count();
        waiting.lookups.drain(..count).collect()
    }
}

fn serve(group: Vec<Lookup>, projection: &dyn Projection) {
    let names: Vec<RequestName> = group.iter().flat_map(|lookup| &lookup.names).cloned().collect();
    match projection.requests(&names) {
        Ok(FoundRequests { revision, requests }) => {
            let mut requests = requests.into_iter();
            for Lookup { names, reply } in group {
                let requests = requests.by_ref().take(names.len()).collect();
                let _ = reply.send(Ok(FoundRequests { revision, requests }));
            }
        }
        // A damaged row must not refuse the others.
        Err(_) if group.len() > 1 => {
            for Lookup { names, reply } in group {
                let _ = reply.send(projection.requests(&names));
            }
        }
        Err(error) => {
            for Lookup { reply, .. } in group {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
