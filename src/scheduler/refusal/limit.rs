//! Conditions of limits of tasks.

use std::time::Duration;

use crate::model::limits::LIMIT_KEYS_MAX;
use crate::model::{Coded, Details, ErrorCode, Namespace};

/// Keys are free again when tasks have ended.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "namespace `{namespace}` has {LIMIT_KEYS_MAX} keys of limits in use, which is the limit, and `{key}` is another; \
     use fewer keys, or wait until tasks have ended"
)]
pub struct TooManyLimitKeys {
    pub namespace: Namespace,
    pub key: Box<str>,
}

impl Coded for TooManyLimitKeys {
    fn code(&self) -> ErrorCode {
        ErrorCode::TooManyLimitKeys
    }

    fn details(&self) -> Details {
        let quota = (format!("namespace:{}", self.namespace), format!("at most {LIMIT_KEYS_MAX} keys of limits"));
        Details { quota: Some(quota), ..Details::retry_after(RETRY_AFTER) }
            .with_metadata("key", &self.key)
            .with_metadata("limit", LIMIT_KEYS_MAX)
    }
}
