//! The account for the memory that callers can make the server hold. Each part has a limit of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::error::{Coded, Details, ErrorCode};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request of at most this size that submits nothing is a small one.
const SMALL_BYTES: u64 = 2 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPart {
    /// Small requests that submit nothing, such as those that cancel and delete tasks. Submissions cannot use up their
    /// memory, so that calls which make room work.
    SmallRequests,
    /// All other requests. Requests count from their first byte until they are answered, and longer if their caller does not wait: until the
    /// scheduler has handled them and the result is durable.
    Requests,
    /// Payloads of unfinished tasks. Beyond the limit they are left to the store.
    Payloads,
    /// Arguments, labels, names and trace contexts of unfinished tasks.
    Attached,
}

impl MemoryPart {
    pub const ALL: [Self; 4] = [Self::SmallRequests, Self::Requests, Self::Payloads, Self::Attached];

    /// The part of a request that submits nothing and has `bytes`.
    pub fn of_request(bytes: u64) -> Self {
        if bytes <= SMALL_BYTES { Self::SmallRequests } else { Self::Requests }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::SmallRequests => "small_requests",
            Self::Requests => "requests",
            Self::Payloads => "payloads",
            Self::Attached => "attached",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::SmallRequests => {
                "small requests that submit nothing and are being received or wait for the scheduler"
            }
            Self::Requests => "requests that are being received or wait for the scheduler",
            Self::Payloads => "payloads of unfinished tasks",
            Self::Attached => "arguments, labels, names and trace contexts of unfinished tasks",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::SmallRequests => "retry later",
            Self::Requests => "retry later, or raise `limits.request_bytes`",
            Self::Payloads | Self::Attached => "retry later, or raise `limits.queued_payload_bytes`",
        }
    }
}

/// A part of the memory has reached its limit.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{} use {used} bytes, the limit is {limit}; {}", .part.description(), .part.remedy())]
pub struct MemoryFull {
    pub part: MemoryPart,
    pub used: u64,
    pub limit: u64,
}

impl Coded for MemoryFull {
    fn code(&self) -> ErrorCode {
        ErrorCode::MemoryFull
    }

    fn details(&self) -> Details {
        let quota = ("memory".to_owned(), format!("at most {} bytes of {}", self.limit, self.part.description()));
        let details = Details { quota: Some(quota), ..Details::retry_after(RETRY_AFTER) };
        details.with_metadata("limit", self.limit).with_metadata("part", self.part.name())
    }
}

/// Cheap to clone; clones share the account.
#[derive(Clone, Debug)]
pub struct MemoryAccount(Arc<[Budget; MemoryPart::ALL.len()]>);

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl MemoryAccount {
    /// `limit` returns the limit of a part in bytes.
    pub fn new(limit: impl Fn(MemoryPart) -> u64) -> Self {
        Self(Arc::new(MemoryPart::ALL.map(|part| Budget { limit: limit(part), used: AtomicU64::new(0) })))
    }

    fn budget(&self, part: MemoryPart) -> &Budget {
        &self.0[part as usize]
    }

    pub fn limit(&self, part: MemoryPart) -> u64 {
        self.budget(part).limit
    }

    pub fn used(&self, part: MemoryPart) -> u64 {
        self.budget(part).used.load(Ordering::Relaxed)
    }

    /// Takes memory of the part until the reservation is dropped.
    ///
    /// # Errors
    /// [`MemoryFull`].
    pub fn reserve(&self, part: MemoryPart, bytes: u64) -> Result<Reservation, MemoryFull> {
        let mut reservation = Reservation { account: self.clone(), part, bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Sets the use of a part whose limit its owner enforces.
    pub fn publish(&self, part: MemoryPart, used: u64) {
        self.budget(part).used.store(used, Ordering::Relaxed);
    }
}

/// Memory that is in use; returned when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: MemoryAccount,
    part: MemoryPart,
    bytes: u64,
}

impl Reservation {
    /// Takes more memory; takes none if it fails. A small request that grows becomes a large one.
    ///
    /// # Errors
    /// [`MemoryFull`].
    pub fn grow(&mut self, bytes: u64) -> Result<(), MemoryFull> {
        let total = self.bytes.saturating_add(bytes);
        if self.part == MemoryPart::SmallRequests && MemoryPart::of_request(total) != self.part {
            *self = self.account.reserve(MemoryPart::Requests, total)?;
            return Ok(());
        }
        let Budget { limit, used } = self.account.budget(self.part);
        let before = used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > *limit {
            used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(MemoryFull { part: self.part, used: before, limit: *limit });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Returns all memory beyond `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.account.budget(self.part).used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limit: u64) -> MemoryAccount {
        MemoryAccount::new(|part| if part == MemoryPart::Requests { limit } else { 0 })
    }

    #[test]
    fn memory_beyond_the_limit_is_refused_and_returned_memory_can_be_taken_again() {
        let account = account(100);
        let mut first = account.reserve(MemoryPart::Requests, 60).unwrap();
        let refused = account.reserve(MemoryPart::Requests, 41).unwrap_err();
        assert_eq!((refused.used, refused.limit), (60, 100));
        let second = account.reserve(MemoryPart::Requests, 40).unwrap();
        assert!(first.grow(1).is_err());
        first.shrink(10);
        assert_eq!(account.used(MemoryPart::Requests), 50);
        drop((first, second));
        assert_eq!(account.used(MemoryPart::Requests), 0);
        assert_eq!(account.used(MemoryPart::Payloads), 0);
    }

    #[test]
    fn a_small_request_has_memory_of_its_own_until_it_grows() {
        let account = MemoryAccount::new(|_| 4 << 10);
        let used = |part| account.used(part);
        let mut submission = account.reserve(MemoryPart::Requests, 4 << 10).unwrap();
        let mut cancel = account.reserve(MemoryPart::SmallRequests, 100).unwrap();
        cancel.grow(SMALL_BYTES - 100).unwrap();
        assert_eq!((used(MemoryPart::SmallRequests), used(MemoryPart::Requests)), (SMALL_BYTES, 4 << 10));
        assert_eq!(cancel.grow(1).unwrap_err().part, MemoryPart::Requests);
        assert_eq!(used(MemoryPart::SmallRequests), SMALL_BYTES, "the request keeps what it has");
        submission.shrink(0);
        cancel.grow(1).unwrap();
        assert_eq!((used(MemoryPart::SmallRequests), used(MemoryPart::Requests)), (0, SMALL_BYTES + 1));
    }

    #[test]
    fn a_refusal_names_the_part_and_its_setting() {
        let error = account(5).reserve(MemoryPart::Requests, 6).unwrap_err();
        assert!(error.to_string().contains("requests") && error.to_string().contains("`limits.request_bytes`"));
        let details = error.details();
        assert!(details.retry_after.is_some() && details.metadata.contains(&("part", "requests".to_owned())));
    }
}
