//! The state of pools and handlers: the last event of each.

use prost::Message;

use super::commit::{decode_commit, encode_commit};
use super::corruption::Corruption;
use crate::model::{Event, HandlerChange, HandlerName, ModuleDigest, Revision};

/// The last event of each pool and of each handler that was not deleted, in the order in which the subjects appeared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subjects(Vec<Event>);

#[derive(Clone, PartialEq, Message)]
struct SubjectsRecord {
    #[prost(message, repeated, tag = "1")]
    events: Vec<SubjectEventRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct SubjectEventRecord {
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// The bytes of a commit with this event.
    #[prost(bytes = "vec", tag = "2")]
    commit: Vec<u8>,
}

impl Subjects {
    /// Replaces the previous event of the same subject. Ignores events of tasks, batches and schedules.
    pub fn apply(&mut self, event: &Event) {
        if matches!(event, Event::Task(_) | Event::Batch(_) | Event::Schedule(_)) {
            return;
        }
        if matches!(event, Event::Handler(event) if event.change == HandlerChange::Deleted) {
            self.0.retain(|earlier| !same_subject(earlier, event));
            return;
        }
        match self.0.iter_mut().find(|earlier| same_subject(earlier, event)) {
            Some(earlier) => *earlier = event.clone(),
            None => self.0.push(event.clone()),
        }
    }

    /// The modules of uploaded handlers.
    pub fn modules(&self) -> impl Iterator<Item = (&HandlerName, ModuleDigest)> {
        self.0.iter().filter_map(|event| match event {
            Event::Handler(event) => match &event.change {
                HandlerChange::Uploaded(upload) => Some((&event.handler, upload.module)),
                HandlerChange::Registered(_) | HandlerChange::Deleted => None,
            },
            Event::Task(_) | Event::Batch(_) | Event::Schedule(_) | Event::Pool(_) => None,
        })
    }

    pub fn events(&self) -> &[Event] {
        &self.0
    }

    pub fn encode(&self) -> Vec<u8> {
        let record = |event: &Event| {
            let mut commit = Vec::new();
            encode_commit(std::slice::from_ref(event), &mut commit);
            SubjectEventRecord { revision: event.revision().0, commit }
        };
        SubjectsRecord { events: self.0.iter().map(record).collect() }.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let mut events = Vec::new();
        for record in SubjectsRecord::decode(bytes)?.events {
            events.extend(decode_commit(Revision(record.revision), &record.commit)?);
        }
        Ok(Self(events))
    }
}

fn same_subject(a: &Event, b: &Event) -> bool {
    match (a, b) {
        (Event::Pool(a), Event::Pool(b)) => a.pool == b.pool,
        (Event::Handler(a), Event::Handler(b)) => a.handler == b.handler,
        _ => false,
    }
}
