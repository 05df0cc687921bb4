//! Records of the limits of tasks, of waiting for them, and of the starts that they count.

use prost::Message;

use super::corruption::Corruption;
use super::values::{name, nanos};
use crate::model::{
    LimitCause, LimitCharge, LimitHold, LimitName, LimitRule, LimitSource, StartRate, TaskLimit, Timestamp,
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskLimitRecord {
    /// Of a configured limit; then the numbers are missing.
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint32, optional, tag = "3")]
    max_running: Option<u32>,
    #[prost(message, optional, tag = "4")]
    rate: Option<RateRecord>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct RateRecord {
    #[prost(uint32, tag = "1")]
    starts: u32,
    #[prost(uint64, tag = "2")]
    interval: u64,
    #[prost(uint32, tag = "3")]
    burst: u32,
}

impl From<&TaskLimit> for TaskLimitRecord {
    fn from(TaskLimit { source, key }: &TaskLimit) -> Self {
        let (name, LimitRule { max_running, rate }) = match source {
            LimitSource::Configured(name) => (Some(name.to_string()), LimitRule::default()),
            LimitSource::Own(rule) => (None, *rule),
        };
        let rate =
            rate.map(|StartRate { starts, interval, burst }| RateRecord { starts, interval: nanos(interval), burst });
        Self { name, key: key.to_string(), max_running, rate }
    }
}

impl TaskLimitRecord {
    pub(super) fn into_model(self) -> Result<TaskLimit, Corruption> {
        let rate = |RateRecord { starts, interval, burst }| StartRate {
            starts,
            interval: std::time::Duration::from_nanos(interval),
            burst,
        };
        let source = match self.name {
            Some(text) => LimitSource::Configured(name(&text, LimitName::parse)?),
            None => LimitSource::Own(LimitRule { max_running: self.max_running, rate: self.rate.map(rate) }),
        };
        Ok(TaskLimit { source, key: self.key.into() })
    }
}

/// Either the places, or the rate, or neither: the limit is not configured any more.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct LimitHoldRecord {
    #[prost(uint32, tag = "1")]
    limit: u32,
    #[prost(uint32, optional, tag = "2")]
    max: Option<u32>,
    #[prost(uint32, tag = "3")]
    taken: u32,
    #[prost(bool, tag = "4")]
    is_rate: bool,
    #[prost(uint64, optional, tag = "5")]
    until: Option<u64>,
}

impl From<&LimitHold> for LimitHoldRecord {
    fn from(hold: &LimitHold) -> Self {
        let limit = hold.limit.into();
        match hold.cause {
            LimitCause::Places { taken, max } => Self { limit, max: Some(max), taken, ..Self::default() },
            LimitCause::Rate { until } => {
                Self { limit, is_rate: true, until: until.map(|until| until.0), ..Self::default() }
            }
            LimitCause::NotConfigured => Self { limit, ..Self::default() },
        }
    }
}

impl LimitHoldRecord {
    pub(super) fn into_model(self) -> Result<Box<LimitHold>, Corruption> {
        let cause = match self.max {
            Some(max) => LimitCause::Places { taken: self.taken, max },
            None if self.is_rate => LimitCause::Rate { until: self.until.map(Timestamp) },
            None => LimitCause::NotConfigured,
        };
        Ok(Box::new(LimitHold { limit: position(self.limit)?, cause }))
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct LimitChargeRecord {
    #[prost(uint32, tag = "1")]
    limit: u32,
    #[prost(fixed64, tag = "2")]
    full_at: u64,
}

impl From<&LimitCharge> for LimitChargeRecord {
    fn from(charge: &LimitCharge) -> Self {
        Self { limit: charge.limit.into(), full_at: charge.full_at }
    }
}

impl LimitChargeRecord {
    pub(super) fn into_model(self) -> Result<LimitCharge, Corruption> {
        Ok(LimitCharge { limit: position(self.limit)?, full_at: self.full_at })
    }
}

fn position(limit: u32) -> Result<u8, Corruption> {
    u8::try_from(limit).map_err(|_| Corruption::new(format!("limit {limit} of a task")))
}
