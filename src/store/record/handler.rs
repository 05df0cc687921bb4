//! The bytes of a change of a handler.

use prost::Message;

use super::corruption::Corruption;
use crate::model::{HandlerChange, HandlerEvent, HandlerName, PoolName, Registration, Revision, Timestamp};

/// A handler that a worker has registered.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HandlerRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    registered: Option<RegistrationRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct RegistrationRecord {
    #[prost(string, repeated, tag = "1")]
    pools: Vec<String>,
    #[prost(string, tag = "2")]
    description: String,
}

impl From<&HandlerEvent> for HandlerRecord {
    fn from(event: &HandlerEvent) -> Self {
        let HandlerChange::Registered(Registration { pools, description }) = &event.change;
        let pools = pools.iter().map(ToString::to_string).collect();
        let registered = RegistrationRecord { pools, description: description.to_string() };
        Self { name: event.handler.to_string(), registered: Some(registered) }
    }
}

impl HandlerRecord {
    pub(super) fn into_model(self, revision: Revision, at: Timestamp) -> Result<HandlerEvent, Corruption> {
        let handler =
            HandlerName::parse(&self.name).map_err(|error| Corruption::new(format!("handler name {error}")))?;
        let record = self.registered.ok_or_else(|| Corruption::new("handler event without a change"))?;
        let pool = |name: &String| {
            PoolName::parse(name).map_err(|error| Corruption::new(format!("pool name of a handler {error}")))
        };
        let pools: Box<[PoolName]> = record.pools.iter().map(pool).collect::<Result<_, _>>()?;
        if pools.is_empty() {
            return Err(Corruption::new("handler event without pools"));
        }
        let registration = Registration { pools, description: record.description.into() };
        Ok(HandlerEvent { revision, at, handler, change: HandlerChange::Registered(registration) })
    }
}
