//! The bytes of a change of a pool.

use prost::Message;

use super::corruption::Corruption;
use crate::model::{PoolChange, PoolEvent, PoolName, PoolSettings, Revision, Timestamp};

/// Changed settings of a pool.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PoolRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    configured: Option<PoolSettingsRecord>,
    #[prost(message, optional, tag = "3")]
    set: Option<PoolSettingsRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct PoolSettingsRecord {
    #[prost(uint64, tag = "1")]
    size: u64,
    #[prost(uint64, tag = "2")]
    queue_limit: u64,
    #[prost(bool, tag = "3")]
    paused: bool,
}

impl From<&PoolEvent> for PoolRecord {
    fn from(event: &PoolEvent) -> Self {
        let PoolChange::Updated { configured, set } = event.change;
        Self { name: event.pool.to_string(), configured: Some(configured.into()), set: Some(set.into()) }
    }
}

impl PoolRecord {
    pub(super) fn into_model(self, revision: Revision, at: Timestamp) -> Result<PoolEvent, Corruption> {
        let pool = PoolName::parse(&self.name).map_err(|error| Corruption::new(format!("pool name {error}")))?;
        let settings = |record: Option<PoolSettingsRecord>| {
            record.ok_or_else(|| Corruption::new("pool event without settings"))?.into_model()
        };
        let change = PoolChange::Updated { configured: settings(self.configured)?, set: settings(self.set)? };
        Ok(PoolEvent { revision, at, pool, change })
    }
}

impl From<PoolSettings> for PoolSettingsRecord {
    fn from(PoolSettings { size, queue_limit, paused }: PoolSettings) -> Self {
        Self { size: size as u64, queue_limit: queue_limit as u64, paused }
    }
}

impl PoolSettingsRecord {
    fn into_model(self) -> Result<PoolSettings, Corruption> {
        let number = |number: u64| usize::try_from(number).map_err(|_| Corruption::new("pool setting is too large"));
        Ok(PoolSettings { size: number(self.size)?, queue_limit: number(self.queue_limit)?, paused: self.paused })
    }
}
