//! Settings of the server as a whole: listener, store, retention, limits, log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::telemetry::log::LogFormat;

use super::error::Problems;
use super::units::{ByteSize, HumanDuration};

/// `[server]`: where callers connect and how many of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on; port 0 takes any free one. Default "127.0.0.1:7070".
    pub listen: SocketAddr,
    /// Second address, plaintext, for probes and scrapers only: `/health`, `/metrics`, grpc.health.v1. Any address is
    /// allowed, since nothing can be changed there. Default: none.
    pub health_listen: Option<SocketAddr>,
    /// Allows to listen beyond loopback although callers are not authenticated. Default false.
    pub insecure: bool,
    /// How long running tasks may go on after the server was asked to end, 0 to 24 hours. Default 30s.
    pub drain_limit: HumanDuration,
    /// Calls that one connection may have open at a time, 1 to 1,000,000. Default 256.
    pub max_concurrent_streams: u32,
    /// Silence after which a connection is probed, at least 1s. Default 30s.
    pub keepalive_interval: HumanDuration,
    /// How long the answer to a probe may take before the connection is dropped, at least 1s. Default 10s.
    pub keepalive_timeout: HumanDuration,
    /// Age at which a connection is asked to reconnect, so that load spreads, at least 1s. Default 5m.
    pub connection_age: HumanDuration,
    /// How long the calls of such a connection may go on. Default 60s.
    pub connection_age_grace: HumanDuration,
    /// Calls in work at a time over all connections; more are refused as overload, 1 to 1,000,000. Default 4096.
    pub max_in_flight: usize,
    /// Silence of the scheduler's loop or of a thread of the runtime after which the server says that it is not ready,
    /// 2s to 1 hour. Default 10s.
    pub stall_limit: HumanDuration,
    /// Connections at a time; more are closed at once, 1 to 1,000,000. Default 10,000.
    pub max_connections: usize,
    /// Connections at a time from one address (IPv6: from one /64 network), 1 to 1,000,000. Default 1,000.
    pub max_connections_per_address: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            health_listen: None,
            insecure: false,
            drain_limit: HumanDuration(Duration::from_secs(30)),
            max_concurrent_streams: 256,
            keepalive_interval: HumanDuration(Duration::from_secs(30)),
            keepalive_timeout: HumanDuration(Duration::from_secs(10)),
            connection_age: HumanDuration(Duration::from_mins(5)),
            connection_age_grace: HumanDuration(Duration::from_mins(1)),
            max_in_flight: 4096,
            stall_limit: HumanDuration(Duration::from_secs(10)),
            max_connections: 10_000,
            max_connections_per_address: 1_000,
        }
    }
}

impl Server {
    pub(super) fn check(&self, authenticated: bool, problems: &mut Problems) {
        // An IPv4 address in IPv6 clothes is judged as what it is.
        if !self.insecure && !authenticated && !self.listen.ip().to_canonical().is_loopback() {
            problems.add(
                "server.listen",
                self.listen,
                "is reachable from other machines, and callers are not authenticated; \
                 set [auth], listen on 127.0.0.1 or [::1], or set server.insecure = true",
            );
        }
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        problems.within("server.drain_limit", self.drain_limit, HumanDuration::default(), HumanDuration(day));
        problems.within(
            "server.keepalive_interval",
            self.keepalive_interval,
            HumanDuration(second),
            HumanDuration(day),
        );
        problems.within("server.keepalive_timeout", self.keepalive_timeout, HumanDuration(second), HumanDuration(day));
        problems.within("server.connection_age", self.connection_age, HumanDuration(second), HumanDuration(365 * day));
        problems.within(
            "server.connection_age_grace",
            self.connection_age_grace,
            HumanDuration::default(),
            HumanDuration(day),
        );
        problems.within(
            "server.stall_limit",
            self.stall_limit,
            HumanDuration(2 * second),
            HumanDuration(Duration::from_hours(1)),
        );
        problems.within("server.max_concurrent_streams", self.max_concurrent_streams, 1, 1_000_000);
        problems.within("server.max_connections", self.max_connections, 1, 1_000_000);
        let per_address = self.max_connections_per_address;
        problems.within("server.max_connections_per_address", per_address, 1, 1_000_000);
        problems.within("server.max_in_flight", self.max_in_flight, 1, 1_000_000);
    }
}

/// `[store]`: where tasks are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Directory of the journal and the tables; made when it is missing. Default "./lineshaft-data".
    pub directory: PathBuf,
    /// Keeps everything in memory and nothing on disk. Default false.
    pub memory: bool,
    /// Events at least that are kept for watchers that fell behind, 1,000 to 1,000,000,000. Default 1,000,000.
    pub watch_window_events: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self { directory: "./lineshaft-data".into(), memory: false, watch_window_events: 1_000_000 }
    }
}

impl Store {
    pub(super) fn check(&self, problems: &mut Problems) {
        if !self.memory && self.directory.as_os_str().is_empty() {
            problems.add("store.directory", "\"\"", "must not be empty unless store.memory = true");
        }
        problems.within("store.watch_window_events", self.watch_window_events, 1_000, 1_000_000_000);
    }
}

/// `[retention]`: how long ended tasks are kept; whichever bound is met first removes the oldest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Ended tasks that are kept at most in each namespace, 0 to 1,000,000,000. Default 10,000.
    pub count: u64,
    /// Time since its end for which a task is kept at most, 1s to 10 years. Default 7d.
    pub age: HumanDuration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { count: 10_000, age: HumanDuration(Duration::from_hours(7 * 24)) }
    }
}

impl Retention {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.within("retention.count", self.count, 0, 1_000_000_000);
        let age_max = Duration::from_hours(10 * 365 * 24);
        problems.within("retention.age", self.age, HumanDuration(Duration::from_secs(1)), HumanDuration(age_max));
    }
}

/// `[limits]`: bounds that hold over all pools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for the payloads of tasks that have not ended; those beyond it are read back from the store when their
    /// task starts; 0 to 1TiB. Default "256MiB".
    pub queued_payload_bytes: ByteSize,
    /// A task that was running at this many crashes of the server in a row is failed. 1 to 100. Default 3.
    pub crashes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queued_payload_bytes: ByteSize(256 << 20), crashes_max: 3 }
    }
}

impl Limits {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.within("limits.queued_payload_bytes", self.queued_payload_bytes, ByteSize(0), ByteSize(1 << 40));
        problems.within("limits.crashes_max", self.crashes_max, 1, 100);
    }
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Shape of a line. Default "auto".
    #[serde(deserialize_with = "log_format")]
    pub format: LogFormat,
    /// Level, or levels by module: "info", "warn,lineshaft=debug". Default "info".
    pub filter: String,
    /// Lines of one warning or error within 10 seconds; more are only counted. 0: no bound. Default 20.
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

/// By way of a string, because the variable's own error would not list the choices.
fn log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    LogFormat::deserialize(String::deserialize(deserializer)?.into_deserializer())
}
