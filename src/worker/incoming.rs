//! Payloads that arrive in chunks on one stream.

use std::collections::HashMap;

use tonic::Status;

use crate::proto::v1::{self, payload::Kind};

/// Attempts whose payload has not arrived completely, by token.
#[derive(Default)]
pub struct IncomingPayloads(HashMap<String, Incoming>);

struct Incoming {
    assigned: v1::AttemptAssigned,
    bytes: usize,
    data: Vec<u8>,
}

impl IncomingPayloads {
    pub fn begin(&mut self, assigned: v1::AttemptAssigned) {
        let bytes = usize::try_from(assigned.payload_bytes).unwrap_or(0);
        // Its memory grows with what arrives.
        self.0.insert(assigned.token.clone(), Incoming { assigned, bytes, data: Vec::new() });
    }

    /// Adds a part. Returns the attempt if it was the last one. A part for an attempt that was cancelled is ignored.
    ///
    /// # Errors
    /// INTERNAL if the part does not follow the one before it.
    pub fn add(&mut self, chunk: &v1::AttemptChunk) -> Result<Option<v1::AttemptAssigned>, Status> {
        let Some(incoming) = self.0.get_mut(&chunk.token) else { return Ok(None) };
        let (offset, end) = (incoming.data.len(), incoming.data.len() + chunk.data.len());
        if usize::try_from(chunk.offset) != Ok(offset) || end > incoming.bytes {
            let text = format!("the server sent bytes {} to {end} of a payload after {offset} bytes", chunk.offset);
            return Err(Status::internal(text));
        }
        incoming.data.extend_from_slice(&chunk.data);
        if end < incoming.bytes {
            return Ok(None);
        }
        Ok(self.0.remove(&chunk.token).map(|Incoming { mut assigned, data, .. }| {
            assigned.payload.get_or_insert_default().kind = Some(Kind::Data(data.into()));
            assigned
        }))
    }

    /// Whether the payload of the attempt had not arrived completely.
    pub fn remove(&mut self, token: &str) -> bool {
        self.0.remove(token).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(token: &str, payload_bytes: i64) -> v1::AttemptAssigned {
        let payload = Some(v1::Payload { kind: None, content_type: "text/plain".to_owned() });
        v1::AttemptAssigned { token: token.to_owned(), payload, payload_bytes, ..v1::AttemptAssigned::default() }
    }

    fn chunk(token: &str, offset: i64, data: &'static [u8]) -> v1::AttemptChunk {
        v1::AttemptChunk { token: token.to_owned(), offset, data: data.into() }
    }

    #[test]
    fn an_attempt_has_its_payload_when_all_parts_have_arrived_among_those_of_others() {
        let mut incoming = IncomingPayloads::default();
        incoming.begin(assigned("a", 5));
        incoming.begin(assigned("b", 3));
        assert!(incoming.add(&chunk("a", 0, b"abc")).unwrap().is_none());
        let whole = incoming.add(&chunk("b", 0, b"xyz")).unwrap().unwrap();
        assert_eq!(whole.payload.unwrap().kind, Some(Kind::Data("xyz".into())));
        let whole = incoming.add(&chunk("a", 3, b"de")).unwrap().unwrap();
        let payload = whole.payload.unwrap();
        assert_eq!((payload.kind, &*payload.content_type), (Some(Kind::Data("abcde".into())), "text/plain"));
    }

    #[test]
    fn parts_out_of_order_and_too_many_bytes_are_errors_and_those_of_unknown_attempts_are_ignored() {
        let mut incoming = IncomingPayloads::default();
        for wrong in [chunk("a", 1, b"a"), chunk("a", -1, b"a"), chunk("a", 0, b"abcdef")] {
            incoming.begin(assigned("a", 5));
            assert_eq!(incoming.add(&wrong).unwrap_err().code(), tonic::Code::Internal);
        }
        assert!(incoming.remove("a") && !incoming.remove("a"));
        assert!(incoming.add(&chunk("a", 9, b"a")).unwrap().is_none());
    }
}
