//! Slots of calls, which callers and their namespaces share fairly.
//!
//! A call in flight has a slot until its response is ready. Watches, waits and streams have slots of another kind, until
//! they end, so that no number of them keeps other calls away. Calls that make room have some slots more.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::Status;

use crate::api::auth::{ConnectionInfo, Identity, InUse, is_streaming, makes_room};
use crate::api::status::{self, EdgeError};
use crate::model::share::{Budget, Exceeded, Resource};
use crate::model::{ErrorCode, Reservation, Sharer};

/// Slots of calls that make room, in addition to those of all calls.
const ROOM: u64 = 256;

/// Cheap to clone; clones share the slots.
#[derive(Clone)]
pub struct CallSlots(Arc<Slots>);

struct Slots {
    calls: Budget,
    room: Budget,
    streams: Budget,
    /// Callers without an identity.
    by_address: InUse<IpAddr, Sharer>,
}

impl Slots {
    fn budget(&self, resource: Resource) -> &Budget {
        match resource {
            Resource::Streams => &self.streams,
            Resource::Room => &self.room,
            _ => &self.calls,
        }
    }
}

impl CallSlots {
    pub fn new(max_in_flight: usize, max_open_streams: usize) -> Self {
        Self(Arc::new(Slots {
            calls: Budget::new(max_in_flight as u64),
            room: Budget::new(ROOM),
            streams: Budget::new(max_open_streams as u64),
            by_address: InUse::default(),
        }))
    }

    /// Takes a slot for a call, without waiting.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn acquire(
        &self,
        path: &str,
        identity: Option<&Arc<Identity>>,
        connection: &ConnectionInfo,
    ) -> Result<CallSlot, Status> {
        let first = if is_streaming(path) { Resource::Streams } else { Resource::Calls };
        self.acquire_of(first, path, identity, connection)
    }

    /// As [`CallSlots::acquire`], for a request that becomes calls of the services when it is complete.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn acquire_for_request(
        &self,
        path: &str,
        identity: Option<&Arc<Identity>>,
        connection: &ConnectionInfo,
    ) -> Result<CallSlot, Status> {
        self.acquire_of(Resource::Calls, path, identity, connection)
    }

    fn acquire_of(
        &self,
        first: Resource,
        path: &str,
        identity: Option<&Arc<Identity>>,
        connection: &ConnectionInfo,
    ) -> Result<CallSlot, Status> {
        let sharer = match identity {
            Some(identity) => identity.sharer.clone(),
            None => connection.sharer_among(&self.0.by_address),
        };
        self.take(first, &sharer).or_else(|exceeded| {
            let more = makes_room(path).then(|| self.take(Resource::Room, &sharer).ok()).flatten();
            more.ok_or_else(|| self.overloaded(first, exceeded))
        })
    }

    fn take(&self, resource: Resource, sharer: &Arc<Sharer>) -> Result<CallSlot, Exceeded> {
        self.0.budget(resource).take(1, Some((sharer, resource)))?;
        Ok(CallSlot { slots: self.clone(), resource, sharer: sharer.clone(), memory: None })
    }

    fn overloaded(&self, resource: Resource, exceeded: Exceeded) -> Status {
        let what = match resource {
            Resource::Streams => "watches, waits and streams are open",
            _ => "calls are in flight",
        };
        let setting = if resource == Resource::Streams { "max_open_streams" } else { "max_in_flight" };
        let limit = self.0.budget(resource).limit();
        let message = match exceeded {
            Exceeded::Total { .. } => format!("too many {what}: `server.{setting}` is {limit}; retry later"),
            Exceeded::Share { used, share } => format!(
                "too many {what}: {used} of this caller or its namespace, whose present share of \
                 `server.{setting}` is {share}; retry later"
            ),
        };
        status::to_status(&EdgeError { code: ErrorCode::Overloaded, message })
    }

    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.0.calls.used()
    }
}

/// One slot, returned when it is dropped.
pub struct CallSlot {
    slots: CallSlots,
    resource: Resource,
    sharer: Arc<Sharer>,
    memory: Option<Box<Reservation>>,
}

impl CallSlot {
    /// Keeps memory for the time that the slot is taken.
    pub fn hold(&mut self, memory: Option<Box<Reservation>>) {
        self.memory = memory;
    }

    /// The caller that has the slot.
    pub fn sharer(&self) -> &Arc<Sharer> {
        &self.sharer
    }

    /// Whether the slot is that of a watch, a wait or a stream.
    pub fn is_stream(&self) -> bool {
        self.resource == Resource::Streams
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.slots.0.budget(self.resource).give_back(1, Some((&self.sharer, self.resource)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "/lineshaft.v1.TaskService/GetTask";
    const WAIT: &str = "/lineshaft.v1.TaskService/WaitTask";
    const CANCEL: &str = "/lineshaft.v1.TaskService/CancelTask";

    /// Takes slots until none is left, for callers of different addresses.
    fn fill(slots: &CallSlots, path: &str) -> Vec<CallSlot> {
        let callers = std::iter::repeat_with(ConnectionInfo::default);
        callers.map_while(|caller| slots.acquire(path, None, &caller).ok()).collect()
    }

    #[test]
    fn waits_and_calls_do_not_use_up_each_others_slots() {
        let slots = CallSlots::new(3, 5);
        let waits = fill(&slots, WAIT);
        let calls = fill(&slots, GET);
        assert_eq!((waits.len(), calls.len()), (5, 3));
        drop(calls);
        assert_eq!(slots.used(), 0);
    }

    #[test]
    fn calls_that_make_room_get_in_when_all_slots_are_taken() {
        let slots = CallSlots::new(3, 5);
        let calls = fill(&slots, "/lineshaft.v1.TaskService/SubmitTask");
        for path in [CANCEL, "/lineshaft.v1.SystemService/Drain", "/api/tasks/x/cancel"] {
            assert!(slots.acquire(path, None, &ConnectionInfo::default()).is_ok(), "{path}");
        }
        assert!(slots.acquire(GET, None, &ConnectionInfo::default()).is_err());
        assert_eq!(fill(&slots, CANCEL).len(), 256);
        drop(calls);
    }
}
