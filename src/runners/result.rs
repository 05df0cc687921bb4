//! The result of an attempt while it arrives.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::sleep;

use crate::model::limits::{INLINE_BYTES_MAX, PayloadLimit};
use crate::model::{Failure, FailureReason, Payload, Reservation};

use super::result_memory::{MEMORY_INTERVAL, ResultMemory};
use super::runner::{Outcome, RunReport};

/// Bytes of a result that are not counted: the memory of a worker contains them.
const UNCOUNTED_BYTES: usize = INLINE_BYTES_MAX;

/// A result that arrives in pieces.
///
/// A large one is counted before it arrives, and until its end is durable. All bytes that it may have are reserved at once:
/// attempts with a part of their results that wait for memory for the rest could wait for each other.
pub struct ResultBuffer {
    memory: ResultMemory,
    /// The number of all bytes, if it is known.
    expected: Option<usize>,
    data: Vec<u8>,
    /// Bytes that have arrived, kept or not.
    total: usize,
    reserved: Option<Reservation>,
    /// Bytes have arrived for which there was no memory.
    is_incomplete: bool,
}

impl ResultBuffer {
    pub fn new(memory: ResultMemory) -> Self {
        Self { memory, expected: None, data: Vec::new(), total: 0, reserved: None, is_incomplete: false }
    }

    /// Tells the number of all bytes that will arrive.
    pub fn expect(&mut self, bytes: u64) {
        self.expected = Some(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    pub fn is_too_large(&self) -> bool {
        self.total.max(self.expected.unwrap_or(0)) > self.memory.limit().0
    }

    /// Whether there is memory for this many further bytes.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        // What exceeds the limit is not kept.
        let PayloadLimit(limit) = self.memory.limit();
        let kept = (self.data.len() + bytes).min(limit);
        if kept <= UNCOUNTED_BYTES || self.reserved.is_some() || self.is_too_large() || self.is_incomplete {
            return true;
        }
        let most = self.expected.map_or(limit, |expected| expected.max(kept));
        self.reserved = self.memory.reserve(most);
        if self.reserved.is_some() {
            // Memory that is not written to is not used.
            self.data.reserve_exact(most - self.data.len());
        }
        self.reserved.is_some()
    }

    /// Waits until there is memory for this many further bytes.
    pub async fn wait_for_room(&mut self, bytes: usize) {
        while !self.has_room(bytes) {
            sleep(MEMORY_INTERVAL).await;
        }
    }

    /// Adds bytes. Without memory for them, the result is lost.
    pub fn push(&mut self, bytes: &[u8]) {
        self.is_incomplete |= !self.has_room(bytes.len());
        self.total += bytes.len();
        if self.is_too_large() || self.is_incomplete {
            (self.data, self.reserved) = (Vec::new(), None);
        } else {
            self.data.extend_from_slice(bytes);
        }
    }

    /// Removes what has arrived.
    pub fn take(&mut self) -> Self {
        let empty = Self::new(self.memory.clone());
        std::mem::replace(self, empty)
    }

    /// The end of an attempt with this result.
    pub fn into_report(mut self, content_type: Arc<str>) -> RunReport {
        let PayloadLimit(limit) = self.memory.limit();
        if self.is_too_large() {
            let text = format!("result has more than {limit} bytes, which is the limit");
            return Outcome::Failed(Failure::new(FailureReason::ResultTooLarge, text)).into();
        }
        if self.is_incomplete {
            let text = format!("there was no memory for the result: {}", self.memory.full());
            return Outcome::Failed(Failure::new(FailureReason::HandlerError, text)).into();
        }
        self.data.shrink_to_fit();
        if let Some(reserved) = &mut self.reserved {
            reserved.shrink(self.data.len() as u64);
        }
        let outcome = Outcome::Completed(Payload { data: Bytes::from(self.data), content_type });
        RunReport { memory: self.reserved.map(Box::new), ..outcome.into() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::model::{MemoryAccount, MemoryPart};

    const MIB: usize = 1 << 20;

    /// Results of up to 4 MiB.
    fn buffer(memory: &ResultMemory) -> ResultBuffer {
        ResultBuffer::new(memory.with_limit(PayloadLimit(4 * MIB)))
    }

    fn memory(bytes: usize) -> (MemoryAccount, ResultMemory) {
        let account = MemoryAccount::new(|_| bytes as u64);
        (account.clone(), ResultMemory::new(account))
    }

    fn used(account: &MemoryAccount) -> usize {
        usize::try_from(account.used(MemoryPart::Requests)).unwrap()
    }

    fn failure(buffer: ResultBuffer) -> Failure {
        match buffer.into_report("text/plain".into()).outcome {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_large_result_is_counted_from_its_second_mebibyte_until_its_report_is_dropped() {
        let (account, memory) = memory(64 * MIB);
        let mut result = buffer(&memory);
        result.push(&vec![1; MIB]);
        assert_eq!(used(&account), 0);
        result.push(&[2]);
        assert_eq!(used(&account), 4 * MIB, "all that may come");
        let report = result.into_report("text/plain".into());
        assert_eq!(used(&account), MIB + 1);
        let Outcome::Completed(Payload { data, .. }) = &report.outcome else { panic!("{report:?}") };
        assert!(data.len() == MIB + 1 && data.ends_with(&[1, 2]));
        drop(report);
        assert_eq!(used(&account), 0);
    }

    #[test]
    fn a_result_of_a_known_size_takes_no_more_memory() {
        let (account, memory) = memory(64 * MIB);
        let mut result = buffer(&memory);
        result.expect(2 * MIB as u64);
        result.push(&vec![1; MIB + 1]);
        assert_eq!(used(&account), 2 * MIB);
        result.expect(1 << 40);
        assert!(result.is_too_large());
    }

    #[test]
    fn a_result_beyond_the_limit_fails_and_keeps_no_memory() {
        let (account, memory) = memory(64 * MIB);
        let mut result = buffer(&memory);
        for _ in 0..4 {
            result.push(&vec![1; MIB]);
        }
        assert!(!result.is_too_large());
        result.push(&[1]);
        assert!(result.is_too_large());
        assert_eq!(used(&account), 0);
        let failure = failure(result);
        assert_eq!(failure.reason, FailureReason::ResultTooLarge);
        assert_eq!(failure.message, "result has more than 4194304 bytes, which is the limit");
    }

    #[tokio::test(start_paused = true)]
    async fn results_wait_for_memory_and_one_that_cannot_wait_is_lost() {
        let (account, memory) = memory(6 * MIB);
        let mut first = buffer(&memory);
        first.push(&vec![1; 2 * MIB]);
        let (mut second, mut third) = (buffer(&memory), buffer(&memory));
        for buffer in [&mut second, &mut third] {
            buffer.push(&vec![1; MIB]);
            assert!(buffer.wait_for_room(1).now_or_never().is_none());
        }
        third.push(&[1]);
        let lost = failure(third);
        assert!(lost.retryable && lost.message.contains("`limits.request_bytes`"), "{lost:?}");
        assert_eq!(used(&account), 4 * MIB);
        drop(first);
        second.wait_for_room(1).await;
        assert_eq!(used(&account), 4 * MIB);
        drop(second.take());
        assert_eq!(used(&account), 0);
    }
}
