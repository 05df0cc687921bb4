//! Large results of a remote worker, which arrive in chunks on one of its streams.
//!
//! The worker announces a result. The server requests it when it has memory for it, so that no result has to be sent again.
//! What has arrived belongs to the stream: on the next one, the worker announces the result again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::api::convert::InvalidFields;
use crate::api::convert::worker::{AnnouncedResult, too_large};
use crate::model::limits::{self, PayloadLimit};
use crate::model::{MemoryAccount, MemoryPart, Payload, Reservation, Sharer};
use crate::scheduler::{Chunk, Outcome, RunReport, Token, WorkerReport};

/// Bytes that are left free, because the messages with the chunks need memory too.
const MESSAGE_BYTES: usize = 2 * limits::INLINE_BYTES_MAX;

pub struct ResultTransfers {
    memory: MemoryAccount,
    sharer: Option<Arc<Sharer>>,
    limit: PayloadLimit,
    transfers: HashMap<Token, Transfer>,
    /// Those that wait for memory, in the order in which they were announced.
    waiting: VecDeque<Token>,
}

struct Transfer {
    announced: AnnouncedResult,
    /// `None` until there is memory for it and it is requested.
    received: Option<(Vec<u8>, Reservation)>,
}

impl ResultTransfers {
    pub fn new(memory: MemoryAccount, sharer: Option<Arc<Sharer>>, limit: PayloadLimit) -> Self {
        Self { memory, sharer, limit, transfers: HashMap::new(), waiting: VecDeque::new() }
    }

    /// Adds a result of an attempt of the worker. Returns the end of the attempt if the result is too large.
    pub fn announce(&mut self, announced: AnnouncedResult) -> Option<WorkerReport> {
        let AnnouncedResult { token, bytes, .. } = announced;
        if bytes > self.limit.0 {
            let report = RunReport { outcome: too_large(bytes, self.limit), artifacts: None, ..announced.report };
            return Some(WorkerReport::Finished(token, report, None));
        }
        // The first announcement on a stream counts.
        self.transfers.entry(token).or_insert_with(|| {
            self.waiting.push_back(token);
            Transfer { announced, received: None }
        });
        None
    }

    /// Whether a result waits for memory.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next result that is to be requested, if there is memory for it.
    pub fn next_request(&mut self) -> Option<Token> {
        while let Some(token) = self.waiting.front().copied() {
            let Some(transfer) = self.transfers.get_mut(&token) else {
                self.waiting.pop_front();
                continue;
            };
            let bytes = transfer.announced.bytes;
            let needed = (bytes + MESSAGE_BYTES) as u64;
            let mut reserved = self.memory.reserve_for(self.sharer.clone(), MemoryPart::Requests, needed).ok()?;
            reserved.shrink(bytes as u64);
            transfer.received = Some((Vec::with_capacity(bytes), reserved));
            self.waiting.pop_front();
            return Some(token);
        }
        None
    }

    /// Adds a part of a result. Returns the end of its attempt if it was the last part. One of a result that was not requested
    /// is ignored: its attempt may not be the worker's any more.
    ///
    /// # Errors
    /// [`InvalidFields`] if it does not follow the part before it, or there is more than was announced. `index` is that of the
    /// message.
    pub fn receive(&mut self, index: usize, chunk: &Chunk) -> Result<Option<WorkerReport>, InvalidFields> {
        let Some(transfer) = self.transfers.get_mut(&chunk.token) else { return Ok(None) };
        let Some((received, _)) = &mut transfer.received else { return Ok(None) };
        let invalid =
            |field: &str, text: String| InvalidFields::one(format_args!("messages[{index}].chunk.{field}"), text);
        if chunk.offset != received.len() {
            let text = format!("is {}, must be {}: the bytes that were sent before", chunk.offset, received.len());
            return Err(invalid("offset", text));
        }
        let (bytes, end) = (transfer.announced.bytes, chunk.offset + chunk.data.len());
        if end > bytes {
            return Err(invalid("data", format!("ends at byte {end}, but the result was announced with {bytes}")));
        }
        received.extend_from_slice(&chunk.data);
        if end < bytes {
            return Ok(None);
        }
        Ok(self.transfers.remove(&chunk.token).and_then(Transfer::end))
    }

    /// The attempt is not the worker's any more.
    pub fn forget(&mut self, token: Token) {
        self.transfers.remove(&token);
    }
}

impl Transfer {
    /// The end of the attempt, with all of its result.
    fn end(self) -> Option<WorkerReport> {
        let (data, memory) = self.received?;
        let AnnouncedResult { token, content_type, report, .. } = self.announced;
        let outcome = Outcome::Completed(Payload { data: data.into(), content_type });
        Some(WorkerReport::Finished(token, RunReport { outcome, ..report }, Some(Box::new(memory))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn transfers(memory: &MemoryAccount) -> ResultTransfers {
        ResultTransfers::new(memory.clone(), None, PayloadLimit(4 * MIB))
    }

    fn account(bytes: usize) -> MemoryAccount {
        MemoryAccount::new(|_| bytes as u64)
    }

    fn announced(token: u64, bytes: usize) -> AnnouncedResult {
        let report = RunReport::from(Outcome::Completed(Payload::default()));
        AnnouncedResult { token: Token(token), bytes, content_type: "text/plain".into(), report }
    }

    fn chunk(token: u64, offset: usize, bytes: usize) -> Chunk {
        Chunk { token: Token(token), offset, data: vec![7; bytes].into() }
    }

    fn used(memory: &MemoryAccount) -> u64 {
        memory.used(MemoryPart::Requests)
    }

    #[test]
    fn a_result_is_complete_with_its_last_byte_and_holds_its_memory_until_its_end_is_dropped() {
        let memory = account(10 * MIB);
        let mut transfers = transfers(&memory);
        assert!(transfers.announce(announced(1, 2 * MIB + 1)).is_none());
        assert_eq!(used(&memory), 0, "before it is requested");
        assert_eq!(transfers.next_request(), Some(Token(1)));
        assert!(!transfers.is_waiting());
        assert_eq!(used(&memory), 2 * MIB as u64 + 1);
        for offset in [0, MIB] {
            assert!(transfers.receive(0, &chunk(1, offset, MIB)).unwrap().is_none());
        }
        let end = transfers.receive(0, &chunk(1, 2 * MIB, 1)).unwrap().unwrap();
        let WorkerReport::Finished(Token(1), report, held) = end else { panic!("{end:?}") };
        let Outcome::Completed(result) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!((result.data.len(), &*result.content_type), (2 * MIB + 1, "text/plain"));
        assert_eq!(used(&memory), 2 * MIB as u64 + 1);
        drop(held);
        assert_eq!(used(&memory), 0);
    }

    #[test]
    fn results_wait_for_memory_in_turn_and_one_that_is_forgotten_gives_it_back() {
        let memory = account(5 * MIB);
        let mut transfers = transfers(&memory);
        for token in 1..=3 {
            assert!(transfers.announce(announced(token, 2 * MIB)).is_none());
        }
        assert_eq!((transfers.next_request(), transfers.next_request()), (Some(Token(1)), None));
        assert!(transfers.is_waiting());
        transfers.forget(Token(2));
        transfers.forget(Token(1));
        assert_eq!(transfers.next_request(), Some(Token(3)));
        drop(transfers);
        assert_eq!(used(&memory), 0);
    }

    #[test]
    fn a_result_beyond_the_limit_is_a_failure_and_nothing_is_reserved() {
        let memory = account(10 * MIB);
        let mut transfers = transfers(&memory);
        let end = transfers.announce(announced(1, 4 * MIB + 1)).unwrap();
        let WorkerReport::Finished(_, report, None) = end else { panic!("{end:?}") };
        let Outcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(failure.message, "result has 4194305 bytes, at most 4194304 are allowed");
        assert!(!transfers.is_waiting());
    }

    #[test]
    fn a_chunk_out_of_order_or_beyond_the_announced_bytes_is_invalid() {
        let memory = account(10 * MIB);
        let mut transfers = transfers(&memory);
        transfers.announce(announced(1, MIB + 1));
        transfers.next_request();
        let field = |found: Result<_, InvalidFields>| found.err().unwrap().paths().concat();
        assert_eq!(field(transfers.receive(5, &chunk(1, 1, 1))), "messages[5].chunk.offset");
        assert!(transfers.receive(0, &chunk(1, 0, MIB)).unwrap().is_none());
        assert_eq!(field(transfers.receive(2, &chunk(1, 0, MIB))), "messages[2].chunk.offset");
        assert_eq!(field(transfers.receive(3, &chunk(1, MIB, 2))), "messages[3].chunk.data");
    }

    #[test]
    fn chunks_that_were_not_requested_are_ignored() {
        let memory = account(MIB);
        let mut transfers = transfers(&memory);
        transfers.announce(announced(1, 2 * MIB));
        assert_eq!(transfers.next_request(), None, "there is no memory");
        for token in [1, 9] {
            assert!(transfers.receive(0, &chunk(token, 0, MIB)).unwrap().is_none());
        }
        assert_eq!(used(&memory), 0);
    }
}
