//! Conditions of a pool.

use std::time::Duration;

use crate::model::{Coded, Details, ErrorCode, PoolName};

#[derive(Clone, Debug, thiserror::Error)]
#[error("pool `{pool}` is not configured; run `lineshaft pool list`")]
pub struct UnknownPool {
    pub pool: PoolName,
}

impl Coded for UnknownPool {
    fn code(&self) -> ErrorCode {
        ErrorCode::UnknownPool
    }

    fn details(&self) -> Details {
        Details::default().with_resource("pool", &self.pool)
    }
}

/// A worker wants to work in a pool that has workers of its own, or no remote pool is configured.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", text(pool.as_ref()))]
pub struct NotRemotePool {
    /// `None`: the worker has named none.
    pub pool: Option<PoolName>,
}

fn text(pool: Option<&PoolName>) -> String {
    match pool {
        Some(pool) => {
            format!("pool `{pool}` is not a configured pool with kind = \"remote\"; run `lineshaft pool list`")
        }
        None => "no pool with kind = \"remote\" is configured; add [[pool]] with name = \"remote\" and kind = \"remote\" to the \
                 configuration file"
            .to_owned(),
    }
}

impl Coded for NotRemotePool {
    fn code(&self) -> ErrorCode {
        ErrorCode::UnknownPool
    }

    fn details(&self) -> Details {
        self.pool.as_ref().map_or_else(Details::default, |pool| Details::default().with_resource("pool", pool))
    }
}

/// The submission would exceed the queue limit of the pool.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pool `{pool}` is full: {waiting} tasks are waiting, the limit is {limit}; retry later")]
pub struct QueueFull {
    pub pool: PoolName,
    /// Number of WAITING and QUEUED tasks.
    pub waiting: u64,
    pub limit: u64,
}

impl Coded for QueueFull {
    fn code(&self) -> ErrorCode {
        ErrorCode::QueueFull
    }

    fn details(&self) -> Details {
        let quota = (format!("pool:{}", self.pool), format!("at most {} tasks may wait", self.limit));
        Details { quota: Some(quota), ..Details::retry_after(Duration::from_secs(1)) }
            .with_metadata("pool", &self.pool)
            .with_metadata("limit", self.limit)
    }
}

/// A pool or a schedule was changed since the caller read it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{subject} has changed: its etag is `{current}`, not `{given}`; read it again")]
pub struct EtagMismatch {
    /// Such as "pool `p`".
    pub subject: String,
    pub given: String,
    pub current: String,
}

impl Coded for EtagMismatch {
    fn code(&self) -> ErrorCode {
        ErrorCode::EtagMismatch
    }

    fn details(&self) -> Details {
        Details::default().with_metadata("etag", &self.current)
    }
}
