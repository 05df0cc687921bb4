//! The reports that a worker has not sent yet, in the order in which they happened.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::OutputStream;

/// Identifies an attempt in all messages about it.
pub type Token = Arc<str>;

/// Bytes of output that wait, beyond which further output is left out.
const OUTPUT_WAITING_MAX: usize = 1 << 20;
/// Bytes of output in one message.
const OUTPUT_CHUNK_MAX: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// The attempt has a progress.
    Progress(Token),
    Output {
        token: Token,
        stream: OutputStream,
        data: Vec<u8>,
        /// Bytes after `data` that were left out.
        omitted: usize,
    },
    /// The attempt has an outcome.
    Finished(Token),
    CancelAcknowledged(Token),
    Suspended(Token),
    Resuming(Token),
    Draining,
    Heartbeat,
}

#[derive(Debug, Default)]
pub struct Outbox {
    reports: VecDeque<Report>,
    output_bytes: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    pub fn push(&mut self, report: Report) {
        self.reports.push_back(report);
    }

    /// Output that follows other output of the same stream shares its message.
    pub fn push_output(&mut self, token: &Token, stream: OutputStream, mut data: &[u8]) {
        let room = OUTPUT_WAITING_MAX.saturating_sub(self.output_bytes);
        let left_out = data.len().saturating_sub(room);
        data = &data[..data.len() - left_out];
        self.output_bytes += data.len();
        if let Some(Report::Output { token: last, stream: last_stream, data: text, omitted }) = self.reports.back_mut()
            && last == token
            && *last_stream == stream
        {
            if *omitted > 0 || data.is_empty() {
                *omitted += data.len() + left_out;
                self.output_bytes -= data.len();
                return;
            }
            let (fits, rest) = data.split_at(data.len().min(OUTPUT_CHUNK_MAX.saturating_sub(text.len())));
            text.extend_from_slice(fits);
            data = rest;
            if data.is_empty() {
                *omitted = left_out;
                return;
            }
        }
        for chunk in data.chunks(OUTPUT_CHUNK_MAX) {
            self.reports.push_back(Report::Output { token: token.clone(), stream, data: chunk.to_vec(), omitted: 0 });
        }
        if left_out > 0 {
            self.mark_omitted(token, stream, left_out);
        }
    }

    fn mark_omitted(&mut self, token: &Token, stream: OutputStream, bytes: usize) {
        if let Some(Report::Output { token: last, stream: last_stream, omitted, .. }) = self.reports.back_mut()
            && last == token
            && *last_stream == stream
        {
            *omitted = bytes;
            return;
        }
        self.reports.push_back(Report::Output { token: token.clone(), stream, data: Vec::new(), omitted: bytes });
    }

    pub fn pop(&mut self) -> Option<Report> {
        let report = self.reports.pop_front()?;
        if let Report::Output { data, .. } = &report {
            self.output_bytes -= data.len();
        }
        Some(report)
    }

    /// Keeps what a new stream has to repeat from the old one: output and progress of the attempts that go on. The introduction
    /// of the worker and the state of its attempts replace the other reports.
    pub fn begin_stream(&mut self, is_known: impl Fn(&Token) -> bool) {
        let mut reports = std::mem::take(&mut self.reports);
        reports.retain(|report| match report {
            Report::Progress(token) | Report::Output { token, .. } => is_known(token),
            _ => false,
        });
        let bytes = |report: &Report| match report {
            Report::Output { data, .. } => data.len(),
            _ => 0,
        };
        self.output_bytes = reports.iter().map(bytes).sum();
        self.reports = reports;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};

    fn output(outbox: &mut Outbox) -> Vec<(OutputStream, usize, usize)> {
        let reports = std::iter::from_fn(|| outbox.pop());
        let sizes = reports.map(|report| match report {
            Report::Output { stream, data, omitted, .. } => (stream, data.len(), omitted),
            other => panic!("{other:?}"),
        });
        sizes.collect()
    }

    #[test]
    fn output_in_a_row_shares_messages_of_bounded_size() {
        let (mut outbox, token) = (Outbox::default(), Token::from("a"));
        for _ in 0..1_000 {
            outbox.push_output(&token, Stdout, &[7; 100]);
        }
        outbox.push_output(&token, Stderr, b"x");
        outbox.push_output(&token, Stdout, b"yz");
        assert_eq!(
            output(&mut outbox),
            [(Stdout, OUTPUT_CHUNK_MAX, 0), (Stdout, 100_000 - OUTPUT_CHUNK_MAX, 0), (Stderr, 1, 0), (Stdout, 2, 0)]
        );
        assert_eq!(outbox.output_bytes, 0);
    }

    #[test]
    fn output_beyond_the_limit_is_left_out_and_counted() {
        let (mut outbox, token) = (Outbox::default(), Token::from("a"));
        for _ in 0..3 {
            outbox.push_output(&token, Stdout, &vec![7; OUTPUT_WAITING_MAX - 10]);
        }
        outbox.push_output(&token, Stderr, b"late");
        let found = output(&mut outbox);
        let kept: usize = found.iter().map(|(_, bytes, _)| bytes).sum();
        let omitted: usize = found.iter().map(|(.., omitted)| omitted).sum();
        assert_eq!((kept, omitted), (OUTPUT_WAITING_MAX, 2 * OUTPUT_WAITING_MAX - 30 + 4));
        assert_eq!(found.last(), Some(&(Stderr, 0, 4)));
        outbox.push_output(&token, Stdout, b"again");
        assert_eq!(output(&mut outbox), [(Stdout, 5, 0)], "there is room again");
    }

    #[test]
    fn a_new_stream_repeats_output_and_progress_of_known_attempts() {
        let (mut outbox, [known, other]) = (Outbox::default(), ["a", "b"].map(Token::from));
        outbox.push(Report::Finished(known.clone()));
        outbox.push_output(&other, Stdout, b"lost");
        outbox.push_output(&known, Stdout, b"kept");
        outbox.push(Report::Progress(known.clone()));
        outbox.begin_stream(|token| *token == known);
        assert_eq!(outbox.output_bytes, 4);
        assert!(matches!(outbox.pop(), Some(Report::Output { data, .. }) if data == b"kept"));
        assert_eq!(outbox.pop(), Some(Report::Progress(known)));
        assert!(outbox.is_empty());
    }
}
