//! What holds when nobody says otherwise, in variables and in the file alike.

use std::time::Duration;

/// What the specification calls no limit, in its own words "a very long time".
pub(super) const NO_LIMIT: Duration = Duration::from_millis(u32::MAX as u64);

/// Longest wait before a batch of spans is sent.
pub(super) const SPAN_DELAY: Duration = Duration::from_secs(5);
/// Longest wait before a batch of log records is sent.
pub(super) const RECORD_DELAY: Duration = Duration::from_secs(1);
/// Longest that the export of a batch, or of all points, may take.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// What may wait in a queue.
pub(super) const QUEUE: usize = 2_048;
/// Items of one export.
pub(super) const BATCH: usize = 512;
/// Time between two exports of points.
pub(super) const METRIC_INTERVAL: Duration = Duration::from_mins(1);
/// Longest that one call to a collector may take, its repeats included.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a collector of this machine listens.
pub(super) const GRPC: &str = "http://localhost:4317";
/// Where a collector of this machine listens.
pub(super) const HTTP: &str = "http://localhost:4318";
/// Where a Zipkin of this machine listens.
pub(super) const ZIPKIN: &str = "http://localhost:9411/api/v2/spans";

/// Where `/metrics` is shown besides.
pub(super) fn prometheus(host: Option<String>, port: Option<u64>) -> (String, u16) {
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(9_464);
    (host.unwrap_or_else(|| "localhost".to_owned()), port)
}

/// A number of milliseconds; very many are no limit.
pub(super) fn millis(said: u64) -> Duration {
    Duration::from_millis(said).min(NO_LIMIT)
}

/// The same for a time-out, of which 0 is no limit.
pub(super) fn timeout(said: u64) -> Duration {
    if said == 0 { NO_LIMIT } else { millis(said) }
}

/// A bound of a span; larger ones are none.
pub(super) fn count(said: u64) -> u32 {
    u32::try_from(said).unwrap_or(u32::MAX)
}

/// A number of things in memory; larger ones cannot be there.
pub(super) fn size(said: u64) -> usize {
    usize::try_from(said).unwrap_or(usize::MAX)
}
