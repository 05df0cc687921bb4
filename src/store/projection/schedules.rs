//! The table of schedules.

use std::path::Path;

use prost::Message;
use rusqlite::Connection;

use super::entities::{Entity, EntityKey, for_each};
use crate::model::schedule::ScheduleKeyRef;
use crate::model::{Namespace, Revision, Schedule, ScheduleId, ScheduleKey};
use crate::store::error::StoreError;
use crate::store::record::{Corruption, EncodedSpec, ScheduleRecord};

impl Entity for Schedule {
    type Key = ScheduleKey;
    type Encoded = EncodedSpec;

    const TABLE: &'static str = "schedules";

    fn key(&self) -> &ScheduleKey {
        &self.key
    }

    fn created(&self) -> Revision {
        self.created
    }

    fn namespace_and_id(key: &ScheduleKey) -> (&str, &str) {
        (key.namespace.as_str(), key.id.as_str())
    }

    fn encode(&self, spec: &mut EncodedSpec) -> Vec<u8> {
        spec.record_of(self)
    }

    fn decode(namespace: Namespace, id: &str, created: Revision, body: &[u8]) -> Result<Self, Corruption> {
        let id = ScheduleId::parse(id).map_err(|error| Corruption::new(error.to_string()))?;
        ScheduleRecord::decode(body)?.into_model(ScheduleKey { namespace, id }, created)
    }
}

impl EntityKey<Schedule> for ScheduleKeyRef<'_> {
    fn to_key(&self) -> ScheduleKey {
        ScheduleKeyRef::to_key(*self)
    }
}

/// Reads all rows, and compares them with the index.
pub fn verify_schedules(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    for_each(connection, path, |_: Schedule| ())
}
