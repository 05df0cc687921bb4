//! The bytes of a change of a handler.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::corruption::Corruption;
use super::values::nanos;
use crate::model::{
    ArgPattern, HandlerChange, HandlerEvent, HandlerName, ModuleDigest, PayloadSchema, PoolName, Registration,
    Revision, Timestamp, Upload, UploadSettings,
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct HandlerRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(oneof = "ChangeRecord", tags = "2, 3, 4")]
    change: Option<ChangeRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ChangeRecord {
    /// By a worker.
    #[prost(message, tag = "2")]
    Registered(RegistrationRecord),
    #[prost(message, tag = "3")]
    Uploaded(Box<UploadRecord>),
    #[prost(bool, tag = "4")]
    Deleted(bool),
}

#[derive(Clone, PartialEq, Message)]
struct RegistrationRecord {
    #[prost(string, repeated, tag = "1")]
    pools: Vec<String>,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct UploadRecord {
    #[prost(string, tag = "1")]
    pool: String,
    #[prost(bytes = "vec", tag = "2")]
    module: Vec<u8>,
    #[prost(string, tag = "3")]
    description: String,
    /// In nanoseconds.
    #[prost(uint64, optional, tag = "4")]
    timeout: Option<u64>,
    #[prost(string, repeated, tag = "5")]
    argv: Vec<String>,
    #[prost(string, optional, tag = "6")]
    arg_pattern: Option<String>,
    #[prost(string, optional, tag = "7")]
    content_type: Option<String>,
    #[prost(uint64, optional, tag = "8")]
    memory_bytes: Option<u64>,
    #[prost(bool, tag = "9")]
    clock: bool,
    #[prost(string, optional, tag = "10")]
    payload_schema: Option<String>,
}

impl From<&HandlerEvent> for HandlerRecord {
    fn from(event: &HandlerEvent) -> Self {
        let change = match &event.change {
            HandlerChange::Registered(Registration { pools, description }) => {
                let pools = pools.iter().map(ToString::to_string).collect();
                ChangeRecord::Registered(RegistrationRecord { pools, description: description.to_string() })
            }
            HandlerChange::Uploaded(upload) => ChangeRecord::Uploaded(Box::new((&**upload).into())),
            HandlerChange::Deleted => ChangeRecord::Deleted(true),
        };
        Self { name: event.handler.to_string(), change: Some(change) }
    }
}

impl From<&Upload> for UploadRecord {
    fn from(Upload { pool, module, settings }: &Upload) -> Self {
        Self {
            pool: pool.to_string(),
            module: module.as_bytes().to_vec(),
            description: settings.description.to_string(),
            timeout: settings.timeout.map(nanos),
            argv: settings.argv.iter().map(ToString::to_string).collect(),
            arg_pattern: settings.arg_pattern.as_ref().map(|pattern| pattern.as_str().to_owned()),
            content_type: settings.content_type.as_ref().map(ToString::to_string),
            memory_bytes: settings.memory_bytes,
            clock: settings.clock,
            payload_schema: settings.payload_schema.as_ref().map(|schema| schema.as_str().to_owned()),
        }
    }
}

impl HandlerRecord {
    pub(super) fn into_model(self, revision: Revision, at: Timestamp) -> Result<HandlerEvent, Corruption> {
        let handler =
            HandlerName::parse(&self.name).map_err(|error| Corruption::new(format!("handler name {error}")))?;
        let change = match self.change {
            None => {
                return Err(Corruption::new(
                    "missing or unknown change of a handler; a later version may have written it",
                ));
            }
            Some(ChangeRecord::Registered(record)) => HandlerChange::Registered(record.into_model()?),
            Some(ChangeRecord::Uploaded(record)) => HandlerChange::Uploaded(Arc::new(record.into_model()?)),
            Some(ChangeRecord::Deleted(_)) => HandlerChange::Deleted,
        };
        Ok(HandlerEvent { revision, at, handler, change })
    }
}

impl RegistrationRecord {
    fn into_model(self) -> Result<Registration, Corruption> {
        let pools: Box<[PoolName]> = self.pools.iter().map(|name| pool(name)).collect::<Result<_, _>>()?;
        if pools.is_empty() {
            return Err(Corruption::new("handler event without pools"));
        }
        Ok(Registration { pools, description: self.description.into() })
    }
}

impl UploadRecord {
    fn into_model(self) -> Result<Upload, Corruption> {
        let pattern = |source: String| {
            ArgPattern::parse(&source)
                .map_err(|error| Corruption::new(format!("argument pattern of a handler: {error}")))
        };
        let schema = |text: String| {
            PayloadSchema::parse(&text).map_err(|error| Corruption::new(format!("schema of a handler {error}")))
        };
        let module = ModuleDigest::from_bytes(&self.module);
        Ok(Upload {
            pool: pool(&self.pool)?,
            module: module.ok_or_else(|| Corruption::new("digest of a module has a wrong length"))?,
            settings: UploadSettings {
                description: self.description.into(),
                timeout: self.timeout.map(Duration::from_nanos),
                argv: self.argv.into_iter().map(Into::into).collect(),
                arg_pattern: self.arg_pattern.map(pattern).transpose()?,
                content_type: self.content_type.map(Into::into),
                memory_bytes: self.memory_bytes,
                clock: self.clock,
                payload_schema: self.payload_schema.map(schema).transpose()?,
            },
        })
    }
}

fn pool(name: &str) -> Result<PoolName, Corruption> {
    PoolName::parse(name).map_err(|error| Corruption::new(format!("pool name of a handler {error}")))
}
