//! The account for the memory that callers can make the server hold. Each part has a limit of its own.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::error::{Coded, Details, ErrorCode};
use super::share::{Budget, Exceeded, Resource, Sharer};
use super::turns::Turns;

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
    /// Responses, from before their content is read until their peer has taken them.
    Responses,
    /// What streams have read from the store and not yet sent.
    StreamReads,
}

impl MemoryPart {
    pub const ALL: [Self; 6] =
        [Self::SmallRequests, Self::Requests, Self::Payloads, Self::Attached, Self::Responses, Self::StreamReads];

    /// The part of a request that submits nothing and has `bytes`.
    pub fn of_request(bytes: u64) -> Self {
        if bytes <= SMALL_BYTES { Self::SmallRequests } else { Self::Requests }
    }

    /// As what callers share it, if they do.
    fn resource(self) -> Option<Resource> {
        match self {
            Self::SmallRequests => Some(Resource::SmallRequests),
            Self::Requests => Some(Resource::Requests),
            Self::Payloads | Self::Attached | Self::Responses | Self::StreamReads => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::SmallRequests => "small_requests",
            Self::Requests => "requests",
            Self::Payloads => "payloads",
            Self::Attached => "attached",
            Self::Responses => "responses",
            Self::StreamReads => "stream_reads",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::SmallRequests => {
                "small requests that submit nothing and are being received or wait for the scheduler"
            }
            Self::Requests => "requests that are being received or wait for the scheduler",
            Self::Payloads => "payloads of unfinished tasks",
            Self::Attached => "batches, and arguments, labels, names and trace contexts of unfinished tasks",
            Self::Responses => "responses that are being built or wait to be read by their caller",
            Self::StreamReads => "tasks and events that streams have read from the store",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::SmallRequests | Self::StreamReads => "retry later",
            Self::Requests => "retry later, or raise `limits.request_bytes`",
            Self::Payloads | Self::Attached => "retry later, or raise `limits.queued_payload_bytes`",
            Self::Responses => "read responses at once, retry later, or raise `limits.response_bytes`",
        }
    }
}

/// A part of the memory has reached its limit, or the caller its share.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{} {}use {used} bytes, {} is {limit}; {}", .part.description(), .whose.owner(), .whose.limit(), .part.remedy())]
pub struct MemoryFull {
    pub part: MemoryPart,
    pub used: u64,
    pub limit: u64,
    pub whose: Whose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Everyone,
    /// The caller's, or that of all callers of its namespace.
    Caller,
}

impl Whose {
    fn owner(self) -> &'static str {
        if self == Self::Caller { "of this caller or its namespace " } else { "" }
    }

    fn limit(self) -> &'static str {
        if self == Self::Caller { "the present share" } else { "the limit" }
    }
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
pub struct MemoryAccount(Arc<[Memory; MemoryPart::ALL.len()]>);

#[derive(Debug)]
struct Memory {
    budget: Budget,
    /// Of the parts for which callers wait in turn.
    turns: Mutex<Turns<oneshot::Sender<Share>>>,
}

impl MemoryAccount {
    /// `limit` returns the limit of a part in bytes.
    pub fn new(limit: impl Fn(MemoryPart) -> u64) -> Self {
        Self(Arc::new(MemoryPart::ALL.map(|part| {
            let limit = limit(part);
            Memory { budget: Budget::new(limit), turns: Mutex::new(Turns::new(limit)) }
        })))
    }

    fn memory(&self, part: MemoryPart) -> &Memory {
        &self.0[part as usize]
    }

    fn budget(&self, part: MemoryPart) -> &Budget {
        &self.memory(part).budget
    }

    pub fn limit(&self, part: MemoryPart) -> u64 {
        self.budget(part).limit()
    }

    pub fn used(&self, part: MemoryPart) -> u64 {
        self.budget(part).used()
    }

    /// Takes memory of the part until the reservation is dropped.
    ///
    /// # Errors
    /// [`MemoryFull`].
    #[cfg(test)]
    pub fn reserve(&self, part: MemoryPart, bytes: u64) -> Result<Reservation, MemoryFull> {
        self.reserve_for(None, part, bytes)
    }

    /// As [`MemoryAccount::reserve`], from the share of a caller.
    ///
    /// # Errors
    /// [`MemoryFull`].
    pub fn reserve_for(
        &self,
        sharer: Option<Arc<Sharer>>,
        part: MemoryPart,
        bytes: u64,
    ) -> Result<Reservation, MemoryFull> {
        let mut reservation = Reservation { account: self.clone(), part, bytes: 0, sharer };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Takes memory of a shared part when the turn of the caller has come. One caller gets at most half of the part.
    /// Never resolves for more than that.
    pub fn share_in_turn(
        &self,
        part: MemoryPart,
        caller: &Arc<str>,
        bytes: u64,
    ) -> impl Future<Output = Share> + Send + use<> {
        let (granted, grant) = oneshot::channel();
        {
            let mut turns = self.memory(part).turns.lock();
            turns.remove_waiters_if(caller, oneshot::Sender::is_closed);
            turns.wait(caller, bytes, granted);
        }
        self.grant(part);
        async move {
            match grant.await {
                Ok(share) => share,
                // The sender is in the account until it is used.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Takes memory of a shared part whatever its limit: it is in use already.
    pub fn share_now(&self, part: MemoryPart, caller: &Arc<str>, bytes: u64) -> Share {
        let mut share = Share { account: self.clone(), part, caller: caller.clone(), bytes: 0 };
        share.resize(bytes);
        share
    }

    /// That the part has no memory left for the caller.
    pub fn full(&self, part: MemoryPart) -> MemoryFull {
        MemoryFull { part, used: self.used(part), limit: self.limit(part), whose: Whose::Everyone }
    }

    /// Gives memory to those whose turn has come.
    fn grant(&self, part: MemoryPart) {
        let Memory { budget, turns } = self.memory(part);
        loop {
            let (caller, bytes, waiter) = {
                let mut turns = turns.lock();
                let next = turns.next(oneshot::Sender::is_closed);
                budget.publish(turns.used());
                match next {
                    Some(next) => next,
                    None => return,
                }
            };
            // If the waiter has just gone, this drops the share, which grants it to the next one.
            drop(waiter.send(Share { account: self.clone(), part, caller, bytes }));
        }
    }

    /// Sets the use of a part whose limit its owner enforces.
    pub fn publish(&self, part: MemoryPart, used: u64) {
        self.budget(part).publish(used);
    }
}

/// Memory that is in use; returned when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: MemoryAccount,
    part: MemoryPart,
    bytes: u64,
    sharer: Option<Arc<Sharer>>,
}

impl Reservation {
    fn sharer(&self) -> Option<(&Sharer, Resource)> {
        Some((self.sharer.as_deref()?, self.part.resource()?))
    }

    /// Takes more memory; takes none if it fails. A small request that grows becomes a large one.
    ///
    /// # Errors
    /// [`MemoryFull`].
    pub fn grow(&mut self, bytes: u64) -> Result<(), MemoryFull> {
        let total = self.bytes.saturating_add(bytes);
        if self.part == MemoryPart::SmallRequests && MemoryPart::of_request(total) != self.part {
            *self = self.account.reserve_for(self.sharer.clone(), MemoryPart::Requests, total)?;
            return Ok(());
        }
        let budget = self.account.budget(self.part);
        budget.take(bytes, self.sharer()).map_err(|exceeded| {
            let (used, limit, whose) = match exceeded {
                Exceeded::Total { used } => (used, budget.limit(), Whose::Everyone),
                Exceeded::Share { used, share } => (used, share, Whose::Caller),
            };
            MemoryFull { part: self.part, used, limit, whose }
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Returns all memory beyond `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.account.budget(self.part).give_back(self.bytes - bytes, self.sharer());
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Memory of a part that callers share; returned when it is dropped.
#[derive(Debug)]
pub struct Share {
    account: MemoryAccount,
    part: MemoryPart,
    caller: Arc<str>,
    bytes: u64,
}

impl Share {
    /// Changes the size to what is in use, whatever the limit.
    pub fn resize(&mut self, bytes: u64) {
        let Memory { budget, turns } = self.account.memory(self.part);
        {
            let mut turns = turns.lock();
            turns.resize(&self.caller, self.bytes, bytes);
            budget.publish(turns.used());
        }
        let is_less = bytes < self.bytes;
        self.bytes = bytes;
        if is_less {
            self.account.grant(self.part);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

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
    fn a_caller_leaves_memory_to_others_also_when_its_small_request_grows() {
        let account = MemoryAccount::new(|_| 9 << 10);
        let (loud, quiet) = (Some(Arc::default()), Some(Arc::default()));
        let take = |sharer: &Option<Arc<Sharer>>| account.reserve_for(sharer.clone(), MemoryPart::Requests, 1 << 10);
        let held: Vec<_> = std::iter::repeat_with(|| take(&loud)).map_while(Result::ok).collect();
        assert_eq!(held.len(), 6);
        let refused = take(&loud).unwrap_err();
        assert_eq!((refused.used, refused.limit, refused.whose), (6 << 10, 4 << 10, Whose::Caller));
        assert!(refused.to_string().contains("this caller"), "{refused}");
        let mut small = account.reserve_for(loud.clone(), MemoryPart::SmallRequests, 1 << 10).unwrap();
        assert_eq!(small.grow(2 << 10).unwrap_err().whose, Whose::Caller);
        take(&quiet).unwrap();
        drop(held);
        small.grow(2 << 10).unwrap();
    }

    #[test]
    fn a_refusal_names_the_part_and_its_setting() {
        let error = account(5).reserve(MemoryPart::Requests, 6).unwrap_err();
        assert!(error.to_string().contains("requests") && error.to_string().contains("`limits.request_bytes`"));
        let details = error.details();
        assert!(details.retry_after.is_some() && details.metadata.contains(&("part", "requests".to_owned())));
    }

    #[tokio::test]
    async fn a_share_is_granted_when_memory_is_returned_and_not_to_those_who_have_gone() {
        let account = MemoryAccount::new(|_| 100);
        let [one, other] = ["one", "other"].map(Arc::from);
        let share = |caller, bytes| account.share_in_turn(MemoryPart::Responses, caller, bytes);
        let mut held = share(&one, 50).await;
        let gone = share(&one, 10);
        let mut waiting = Box::pin(share(&one, 20));
        assert!((&mut waiting).now_or_never().is_none(), "one caller has at most half");
        drop(gone);
        let _other = share(&other, 50).await;
        held.resize(25);
        let granted = waiting.await;
        assert_eq!(account.used(MemoryPart::Responses), 95);
        drop((held, granted));
        assert_eq!(account.used(MemoryPart::Responses), 50);
        let taken = account.share_now(MemoryPart::Responses, &one, 70);
        assert_eq!(account.used(MemoryPart::Responses), 120, "what is in use is counted also beyond the limit");
        drop(taken);
    }
}
