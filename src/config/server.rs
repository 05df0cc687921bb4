//! Sections `[server]`, `[store]`, `[retention]`, `[limits]` and `[log]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::limits::PayloadLimit;
use crate::telemetry::log::LogFormat;
use crate::telemetry::memory_limit::available_memory;

use super::error::Problems;
use super::units::{ByteSize, HumanDuration};

/// Memory that the server may use; `None` if that is unknown.
static AVAILABLE: LazyLock<Option<u64>> = LazyLock::new(available_memory);

/// Memory for each connection by default. A quiet one takes about 40 KiB, a hostile one without a token up to 150 KiB; so all
/// of them take at most a third, and usually a twelfth.
const MEMORY_PER_CONNECTION: u64 = 512 << 10;

/// `[server]`: addresses, connection limits and shutdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on; port 0 selects a free port. Default: "127.0.0.1:7070".
    pub listen: SocketAddr,
    /// Second address for health checks and metrics only: `/health`, `/metrics` and grpc.health.v1, without TLS and
    /// authentication. It is read-only, so any address is allowed. Default: none.
    pub health_listen: Option<SocketAddr>,
    /// Allows other machines to connect without authentication. Default: false.
    pub insecure: bool,
    /// Time that running tasks have to end when the server shuts down, 0 to 24h. Default: 30s.
    pub drain_limit: HumanDuration,
    /// Maximum number of concurrent calls per connection, 1 to 1,000,000. Default: 256.
    pub max_concurrent_streams: u32,
    /// Idle time after which the server sends a ping on a connection, 1s to 24h. Default: 30s.
    pub keepalive_interval: HumanDuration,
    /// Time to wait for the response to a ping before the connection is closed, 1s to 24h. Default: 10s.
    pub keepalive_timeout: HumanDuration,
    /// Time for which a client may take nothing of a response before the server ends it, 1s to 24h. Default: 1m.
    pub send_timeout: HumanDuration,
    /// Age at which the server asks a client to reconnect, which spreads load, 1s to 365d. Default: 5m.
    pub connection_age: HumanDuration,
    /// Time that open calls have to end after the server has asked the client to reconnect, 0 to 24h; calls that wait for
    /// a task have until its end. Default: 1m.
    pub connection_age_grace: HumanDuration,
    /// Maximum number of concurrent calls over all connections, 1 to 1,000,000; further calls fail with OVERLOADED. One
    /// caller can use up to two thirds of them, and less when others call too. Default: 4096.
    pub max_in_flight: usize,
    /// Maximum number of open watches, waits and streams over all connections, 1 to 1,000,000; further ones fail with
    /// OVERLOADED. One caller can use up to two thirds of them, and less when others need them too. Default: 8192.
    pub max_open_streams: usize,
    /// Time after which the attempts of a remote worker that is silent or disconnected are given to others, 3s to 1h.
    /// Default: 30s.
    pub worker_lease: HumanDuration,
    /// Time for which the scheduler or a runtime thread may be unresponsive before the server reports that it is not
    /// ready, 2s to 1h. Default: 10s.
    pub stall_limit: HumanDuration,
    /// Maximum number of open connections, 1 to 1,000,000; further connections are closed immediately. Each needs about
    /// 40 KiB of memory. Default: one for each 512KiB of memory that the server may use, at most 10,000.
    pub max_connections: usize,
    /// Maximum number of open connections from one IP address (IPv6: one /64 network), 1 to 1,000,000. Default: half of
    /// the default of `max_connections`, at most 1,000.
    pub max_connections_per_address: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self::within(*AVAILABLE)
    }
}

impl Server {
    /// The defaults for a server that may use these bytes of memory; `None` if that is unknown.
    fn within(available: Option<u64>) -> Self {
        let connections = available.unwrap_or(u64::MAX) / MEMORY_PER_CONNECTION;
        let max_connections = usize::try_from(connections).unwrap_or(usize::MAX).clamp(64, 10_000);
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            health_listen: None,
            insecure: false,
            drain_limit: HumanDuration(Duration::from_secs(30)),
            max_concurrent_streams: 256,
            keepalive_interval: HumanDuration(Duration::from_secs(30)),
            keepalive_timeout: HumanDuration(Duration::from_secs(10)),
            send_timeout: HumanDuration(Duration::from_mins(1)),
            connection_age: HumanDuration(Duration::from_mins(5)),
            connection_age_grace: HumanDuration(Duration::from_mins(1)),
            max_in_flight: 4096,
            max_open_streams: 8192,
            worker_lease: HumanDuration(Duration::from_secs(30)),
            stall_limit: HumanDuration(Duration::from_secs(10)),
            max_connections,
            max_connections_per_address: (max_connections / 2).min(1_000),
        }
    }
}

impl Server {
    pub(super) fn check(&self, authenticated: bool, problems: &mut Problems) {
        // `to_canonical` treats an IPv4-mapped IPv6 address as its IPv4 address.
        if !self.insecure && !authenticated && !self.listen.ip().to_canonical().is_loopback() {
            problems.add(
                "server.listen",
                self.listen,
                "is reachable from other machines without authentication; \
                 configure [auth], listen on 127.0.0.1 or [::1], or set server.insecure = true",
            );
        }
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        problems.check_range("server.drain_limit", self.drain_limit, HumanDuration::default(), HumanDuration(day));
        problems.check_range(
            "server.keepalive_interval",
            self.keepalive_interval,
            HumanDuration(second),
            HumanDuration(day),
        );
        problems.check_range(
            "server.keepalive_timeout",
            self.keepalive_timeout,
            HumanDuration(second),
            HumanDuration(day),
        );
        problems.check_range("server.send_timeout", self.send_timeout, HumanDuration(second), HumanDuration(day));
        problems.check_range(
            "server.connection_age",
            self.connection_age,
            HumanDuration(second),
            HumanDuration(365 * day),
        );
        problems.check_range(
            "server.connection_age_grace",
            self.connection_age_grace,
            HumanDuration::default(),
            HumanDuration(day),
        );
        problems.check_range(
            "server.stall_limit",
            self.stall_limit,
            HumanDuration(2 * second),
            HumanDuration(Duration::from_hours(1)),
        );
        problems.check_range("server.max_concurrent_streams", self.max_concurrent_streams, 1, 1_000_000);
        problems.check_range("server.max_connections", self.max_connections, 1, 1_000_000);
        let per_address = self.max_connections_per_address;
        problems.check_range("server.max_connections_per_address", per_address, 1, 1_000_000);
        problems.check_range("server.max_in_flight", self.max_in_flight, 1, 1_000_000);
        problems.check_range("server.max_open_streams", self.max_open_streams, 1, 1_000_000);
        let (min, max) = (HumanDuration(Duration::from_secs(3)), HumanDuration(Duration::from_hours(1)));
        problems.check_range("server.worker_lease", self.worker_lease, min, max);
    }
}

/// `[store]`: where tasks are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Data directory; created if it does not exist. Default: "./lineshaft-data".
    pub directory: PathBuf,
    /// Keeps all data in memory and nothing on disk. Default: false.
    pub memory: bool,
    /// Minimum number of events kept for clients that resume a watch, 1,000 to 1,000,000,000, unless they have more than
    /// `watch_window_bytes`. Default: 1,000,000.
    pub watch_window_events: u64,
    /// Number of bytes of such events, with payloads, results and output, beyond which the oldest are deleted, 16MiB to 1TiB.
    /// With store.memory at most 64MiB. Default: "1GiB".
    pub watch_window_bytes: ByteSize,
}

impl Default for Store {
    fn default() -> Self {
        let (watch_window_events, watch_window_bytes) = (1_000_000, ByteSize(1 << 30));
        Self { directory: "./lineshaft-data".into(), memory: false, watch_window_events, watch_window_bytes }
    }
}

impl Store {
    pub(super) fn check(&self, problems: &mut Problems) {
        if !self.memory && self.directory.as_os_str().is_empty() {
            problems.add(
                "store.directory",
                "\"\"",
                "must not be empty; to store nothing on disk, set store.memory = true",
            );
        }
        problems.check_range("store.watch_window_events", self.watch_window_events, 1_000, 1_000_000_000);
        let bytes = self.watch_window_bytes;
        problems.check_range("store.watch_window_bytes", bytes, ByteSize(16 << 20), ByteSize(1 << 40));
    }
}

/// `[retention]`: how long finished tasks are kept and request IDs are remembered, until either limit is exceeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Maximum number of finished tasks per namespace, 0 to 1,000,000,000; the oldest are deleted. Default: 10,000.
    pub count: u64,
    /// Maximum bytes of finished tasks per namespace, 16MiB to 1TiB: payloads, arguments, labels, results, outputs and
    /// failures; the oldest are deleted, but not the one that finished last. With store.memory at most 64MiB. Default:
    /// "1GiB".
    pub bytes: ByteSize,
    /// Maximum time for which a task is kept after it has finished, 1s to 3650d. Default: 7d.
    pub age: HumanDuration,
    /// Maximum number of request IDs that are remembered, 1,000 to 1,000,000,000; the oldest are forgotten. Each needs about
    /// 200 bytes on disk. With store.memory at most 100,000. Default: 10,000,000.
    pub request_id_count: u64,
    /// Maximum time for which a request ID is remembered after the submission, 1s to 3650d. Default: 24h.
    pub request_id_age: HumanDuration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 10_000,
            bytes: ByteSize(1 << 30),
            age: HumanDuration(Duration::from_hours(7 * 24)),
            request_id_count: 10_000_000,
            request_id_age: HumanDuration(Duration::from_hours(24)),
        }
    }
}

impl Retention {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.check_range("retention.count", self.count, 0, 1_000_000_000);
        problems.check_range("retention.bytes", self.bytes, ByteSize(16 << 20), ByteSize(1 << 40));
        problems.check_range("retention.request_id_count", self.request_id_count, 1_000, 1_000_000_000);
        let (age_min, age_max) =
            (HumanDuration(Duration::from_secs(1)), HumanDuration(Duration::from_hours(10 * 365 * 24)));
        problems.check_range("retention.age", self.age, age_min, age_max);
        problems.check_range("retention.request_id_age", self.request_id_age, age_min, age_max);
    }
}

/// `[limits]`: limits of the whole server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for requests from their first byte until they are answered, and for results of more than 1MiB until they are
    /// stored, 32MiB to 1TiB. Further calls and tasks of streams fail with MEMORY_FULL, further large results wait. Default:
    /// a quarter of the memory beyond 160MiB that the server may use, 32MiB to 256MiB.
    pub request_bytes: ByteSize,
    /// Memory for responses, from before their content is read until their callers have taken them, 16MiB to 1TiB. One
    /// caller gets at most half of it. Calls that read tasks wait up to 2s for it and then fail with MEMORY_FULL; streams
    /// wait. Default: an eighth of the memory beyond 160MiB that the server may use, 16MiB to 256MiB.
    pub response_bytes: ByteSize,
    /// Memory for unfinished tasks, 0 to 1TiB. Three quarters are for payloads; further payloads are read from the
    /// store when their task starts. A quarter, but at least 16MiB, is for batches, and for arguments, labels, names and
    /// trace contexts beyond 256 bytes of each task; further submissions with such parts fail with MEMORY_FULL. Default: two
    /// fifths of the memory beyond 160MiB that the server may use, 16MiB to 256MiB.
    pub queued_payload_bytes: ByteSize,
    /// Maximum size of a payload, and of a result, 1MiB to 64MiB, and at most a sixth of `request_bytes` and a quarter of
    /// `response_bytes`. Default: 1MiB.
    pub payload_bytes: ByteSize,
    /// Memory that has to be unused for tasks to start in the server, 0 to 1TiB: of the machine, and of each control group with a limit.
    /// While less is, tasks of pools with local workers wait; they start again when half as much more is unused. 0: they always start.
    /// Default: a twentieth of the memory that the server may use, at most 512MiB.
    pub memory_reserve: ByteSize,
    /// Number of consecutive server crashes during a task after which the task fails, 1 to 100. Default: 3.
    pub crashes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self::within(*AVAILABLE)
    }
}

/// Memory besides requests, unfinished tasks, workers and handlers: the server itself, and the bounded buffers of its
/// store and its watches, full of large payloads. Measured 150 MiB; tests/it/memory.rs holds the sum.
pub const MEMORY_BASE: u64 = 160 << 20;

/// Bytes for events that the projection has not written yet. The more may wait, the more are overtaken and never written.
/// [`MEMORY_BASE`] contains the least.
pub fn unwritten_bytes(available: Option<u64>) -> u64 {
    (available.unwrap_or(0) / 16).clamp(UNWRITTEN_BYTES_MIN, 256 << 20)
}

/// The least of [`unwritten_bytes`].
pub const UNWRITTEN_BYTES_MIN: u64 = 40 << 20;

impl Limits {
    /// The defaults for a server that may use these bytes of memory; `None` if that is unknown.
    fn within(available: Option<u64>) -> Self {
        let free = available.unwrap_or(u64::MAX).saturating_sub(MEMORY_BASE);
        // Whole MiB, so that they are easy to read.
        let share = |per_mille: u64, least: u64| ByteSize(((free >> 20) * per_mille / 1_000).clamp(least, 256) << 20);
        Self {
            request_bytes: share(250, 32),
            response_bytes: share(125, 16),
            queued_payload_bytes: share(400, 16),
            payload_bytes: ByteSize(*PayloadLimit::RANGE.start() as u64),
            memory_reserve: ByteSize(((available.unwrap_or(0) >> 20) / 20).min(512) << 20),
            crashes_max: 3,
        }
    }
}

/// Memory of one unfinished task without what `limits.queued_payload_bytes` contains; docs/kubernetes.md names it.
const TASK_BYTES: u64 = 600;

/// The default queue limit of a pool, so that small tasks cannot use up the memory: what the other parts leave, and at
/// least an eighth of the memory.
pub(super) fn queue_limit_default() -> usize {
    queue_limit_within(*AVAILABLE)
}

fn queue_limit_within(available: Option<u64>) -> usize {
    const MOST: usize = 1_000_000;
    let Some(available) = available else { return MOST };
    let Limits { request_bytes, response_bytes, queued_payload_bytes, .. } = Limits::within(Some(available));
    let parts = MEMORY_BASE + request_bytes.0 + response_bytes.0 + queued_payload_bytes.0;
    let free = available.saturating_sub(parts).max(available / 8);
    usize::try_from(free / TASK_BYTES).unwrap_or(MOST).clamp(1, MOST)
}

impl Limits {
    pub fn payload_limit(&self) -> PayloadLimit {
        PayloadLimit(usize::try_from(self.payload_bytes.0).unwrap_or(usize::MAX))
    }

    fn check_payload_bytes(&self, problems: &mut Problems) {
        let [min, max] = [PayloadLimit::RANGE.start(), PayloadLimit::RANGE.end()].map(|bytes| ByteSize(*bytes as u64));
        problems.check_range("limits.payload_bytes", self.payload_bytes, min, max);
        // A request in JSON counts three times, with a third more for Base64, and one caller gets two thirds of the memory. A
        // response has a payload and a result, and one caller gets half.
        for (name, limit, factor) in
            [("request_bytes", self.request_bytes, 6), ("response_bytes", self.response_bytes, 4)]
        {
            let needed = ByteSize(factor * self.payload_bytes.0.min(max.0));
            if limit.0 < needed.0 {
                let text = format!("requires limits.{name} of at least {needed}, but that is {limit}");
                problems.add("limits.payload_bytes", self.payload_bytes, text);
            }
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        problems.check_range("limits.request_bytes", self.request_bytes, ByteSize(32 << 20), ByteSize(1 << 40));
        problems.check_range("limits.response_bytes", self.response_bytes, ByteSize(16 << 20), ByteSize(1 << 40));
        problems.check_range("limits.queued_payload_bytes", self.queued_payload_bytes, ByteSize(0), ByteSize(1 << 40));
        self.check_payload_bytes(problems);
        problems.check_range("limits.memory_reserve", self.memory_reserve, ByteSize(0), ByteSize(1 << 40));
        problems.check_range("limits.crashes_max", self.crashes_max, 1, 100);
    }
}

/// `[log]`: the server's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Format of a line: "pretty", "json", or "auto": pretty on a terminal, otherwise JSON. Default: "auto".
    #[serde(deserialize_with = "log_format")]
    pub format: LogFormat,
    /// Log level, optionally per module, such as "info" or "warn,lineshaft=debug". Default: "info".
    pub filter: String,
    /// Maximum number of lines in 10 seconds for the same warning or error; further lines are counted and not written.
    /// 0 means no limit. Default: 20.
    pub repeats_max: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned(), repeats_max: 20 }
    }
}

impl Log {
    pub(super) fn check(&self, problems: &mut Problems) {
        if let Err(error) = crate::telemetry::log::check_filter(&self.filter) {
            problems.add("log.filter", format!("{:?}", self.filter), error);
        }
    }
}

/// Deserializes by way of a string: the error for an environment variable then lists the choices.
fn log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    LogFormat::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_connections_follows_from_the_memory_that_the_server_may_use() {
        let limits = |available: Option<u64>| {
            let server = Server::within(available);
            (server.max_connections, server.max_connections_per_address)
        };
        assert_eq!(limits(Some(1 << 20)), (64, 32));
        assert_eq!(limits(Some(256 << 20)), (512, 256));
        assert_eq!(limits(Some(1 << 30)), (2_048, 1_000));
        assert_eq!(limits(Some(1 << 40)), (10_000, 1_000));
        assert_eq!(limits(None), (10_000, 1_000));
    }

    #[test]
    fn the_queue_limit_follows_from_the_memory_that_the_server_may_use() {
        let limits = [256, 512, 1_024, 4_096].map(|mib| queue_limit_within(Some(mib << 20)));
        assert_eq!(limits, [55_924, 139_810, 496_325, 1_000_000]);
        assert_eq!(queue_limit_within(None), 1_000_000);
    }

    #[test]
    fn the_memory_limits_follow_from_the_memory_that_the_server_may_use() {
        let mib = |available: Option<u64>| {
            let limits = Limits::within(available.map(|mib| mib << 20));
            [limits.queued_payload_bytes, limits.request_bytes, limits.response_bytes].map(|bytes| bytes.0 >> 20)
        };
        assert_eq!(mib(Some(64)), [16, 32, 16]);
        let documented = [(256, [38, 32, 16]), (512, [140, 88, 44]), (1_024, [256, 216, 108])];
        for (available, expected) in documented {
            assert_eq!(mib(Some(available)), expected);
            assert!((MEMORY_BASE >> 20) + expected.iter().sum::<u64>() < available, "{available} MiB");
        }
        assert_eq!(mib(Some(1 << 20)), [256; 3]);
        assert_eq!(mib(None), [256; 3]);
    }
}
