//! Maps the configuration to the options of each part of the server.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::Method;

use crate::artifacts::ArtifactStore;
#[cfg(feature = "export")]
use crate::config::Export;
#[cfg(feature = "wasm")]
use crate::config::Wasm;
use crate::config::{Config, Handler, HttpMethod, HttpRequest, Process, unwritten_bytes};
use crate::model::{Catalog, MemoryAccount, MemoryPart, PoolName, PoolSpec, RequestRetention, Retention};
#[cfg(feature = "export")]
use crate::runners::export::{Database, ExportOptions, PostgresOptions, Source};
use crate::runners::http::HttpOptions;
use crate::runners::process::{Limits, ProcessOptions};
#[cfg(feature = "wasm")]
use crate::runners::wasm::WasmOptions;
use crate::runners::{Modules, Runners};
use crate::scheduler::{Configuration, WatchWindow};
use crate::telemetry::host::HostSampler;
use crate::telemetry::memory_limit::available_memory;
use crate::telemetry::{self, Telemetry, log, trace};
use crate::{api, scheduler, store};

/// Arguments, labels and the like have at least this memory: unlike payloads they cannot be left to the store.
const ATTACHED_BYTES_MIN: u64 = 16 << 20;

/// Request ids that a store in memory remembers at most; each needs about 300 bytes.
const MEMORY_REQUEST_IDS_MAX: u64 = 100_000;

/// Bytes of events that a store in memory keeps for watches at most.
const MEMORY_WATCH_WINDOW_BYTES_MAX: u64 = 64 << 20;

/// Bytes of finished tasks per namespace that a store in memory keeps at most.
const MEMORY_RETENTION_BYTES_MAX: u64 = 64 << 20;

/// Exporters and the log.
pub fn telemetry(config: &Config) -> telemetry::Options {
    let settings = &config.telemetry;
    telemetry::Options {
        endpoint: settings.endpoint.reveal().to_owned(),
        protocol: settings.protocol.name(),
        policy: trace::Policy { mode: settings.trace_mode.into(), parent_within: settings.trace_parent_within.0 },
        task_logs: settings.task_logs,
        log: log::Options {
            format: config.log.format,
            export_level: None,
            filter: config.log.filter.clone(),
            repeats_max: config.log.repeats_max,
        },
    }
}

/// `directory` is `None` for a store in memory.
pub(super) fn store(config: &Config, directory: Option<PathBuf>) -> store::Options {
    let unwritten_bytes = usize::try_from(unwritten_bytes(available_memory())).unwrap_or(usize::MAX);
    store::Options { directory, accept_loss: false, requests: request_retention(config), unwritten_bytes }
}

fn retention(config: &Config) -> Retention {
    let bytes_max = if config.store.memory { MEMORY_RETENTION_BYTES_MAX } else { u64::MAX };
    let retention = &config.retention;
    Retention {
        count: usize::try_from(retention.count).unwrap_or(usize::MAX),
        bytes: retention.bytes.0.min(bytes_max),
        age: retention.age.0,
        requests: request_retention(config),
    }
}

fn request_retention(config: &Config) -> RequestRetention {
    let count_max = if config.store.memory { MEMORY_REQUEST_IDS_MAX } else { u64::MAX };
    let retention = &config.retention;
    RequestRetention { count: retention.request_id_count.min(count_max), age: retention.request_id_age.0 }
}

fn watch_window(config: &Config) -> WatchWindow {
    let bytes_max = if config.store.memory { MEMORY_WATCH_WINDOW_BYTES_MAX } else { u64::MAX };
    let store = &config.store;
    WatchWindow { events: store.watch_window_events, bytes: store.watch_window_bytes.0.min(bytes_max) }
}

/// The pools in the order of the file, because the first pool is the default pool.
fn pools_and_catalog(config: &Config) -> (Vec<PoolSpec>, Arc<Catalog>) {
    let catalog = Arc::new(config.catalog());
    let spec = |name: &String| PoolName::parse(name).ok().and_then(|name| catalog.pools.get(&name)).cloned();
    (config.pools.iter().filter_map(|pool| spec(&pool.name)).collect(), catalog)
}

/// What a reload replaces.
pub(super) fn configuration(config: &Config, runners: Runners) -> Configuration {
    let (pools, catalog) = pools_and_catalog(config);
    Configuration { pools, catalog, runners }
}

pub(super) fn scheduler(
    config: &Config,
    telemetry: &Telemetry,
    memory: &MemoryAccount,
    modules: Arc<Modules>,
    artifacts: ArtifactStore,
) -> scheduler::Options {
    let (pools, catalog) = pools_and_catalog(config);
    scheduler::Options {
        core: scheduler::CoreOptions {
            pools,
            catalog,
            retention: retention(config),
            payload_bytes_max: memory.limit(MemoryPart::Payloads),
            attached_bytes_max: memory.limit(MemoryPart::Attached),
            crashes_max: config.limits.crashes_max,
        },
        drain_limit: config.server.drain_limit.0,
        watch_window: watch_window(config),
        memory: memory.clone(),
        worker_lease: config.server.worker_lease.0,
        modules,
        artifacts,
        telemetry: telemetry.clone(),
    }
}

/// Two reads of the largest size per caller, at least.
const STREAM_READ_BYTES: u64 = 16 << 20;

/// Enough for as many calls as are in flight by default.
const SMALL_REQUEST_BYTES: u64 = 8 << 20;

fn memory(config: &Config) -> MemoryAccount {
    let tasks = config.limits.queued_payload_bytes.0;
    MemoryAccount::new(|part| match part {
        MemoryPart::SmallRequests => SMALL_REQUEST_BYTES,
        MemoryPart::Requests => config.limits.request_bytes.0,
        MemoryPart::Payloads => tasks - tasks / 4,
        MemoryPart::Attached => (tasks / 4).max(ATTACHED_BYTES_MIN),
        MemoryPart::Responses => config.limits.response_bytes.0,
        MemoryPart::StreamReads => STREAM_READ_BYTES,
    })
}

pub(super) fn server(
    config: &Config,
    instance: &str,
    sampler: Arc<HostSampler>,
    telemetry: &Telemetry,
) -> api::Options {
    api::Options {
        connections: api::ConnectionOptions {
            max_concurrent_streams: config.server.max_concurrent_streams,
            keepalive_interval: config.server.keepalive_interval.0,
            keepalive_timeout: config.server.keepalive_timeout.0,
            header_timeout: config.http.header_timeout.0,
            send_timeout: config.server.send_timeout.0,
            age: config.server.connection_age.0,
            age_grace: config.server.connection_age_grace.0,
        },
        body_timeout: config.http.body_timeout.0,
        allowed_origins: config.http.allowed_origins.clone(),
        hosts: config.http.hosts.clone(),
        max_in_flight: config.server.max_in_flight,
        max_open_streams: config.server.max_open_streams,
        instance: instance.to_owned(),
        trace_url: config.telemetry.trace_url.clone(),
        host: Arc::new(move || sampler.health()),
        telemetry: telemetry.clone(),
        memory: memory(config),
    }
}

pub(super) fn process(process: Process, handler: &Handler) -> ProcessOptions {
    ProcessOptions {
        argv: process.argv,
        arg_pattern: process.arg_pattern,
        env: process.env,
        env_pass: process.env_pass,
        user: process.user,
        group: process.group,
        nice: process.nice,
        working_directory: process.working_directory,
        limits: Limits {
            memory_bytes: process.limits.memory.map(|size| size.0),
            cpu_seconds: process.limits.cpu.map(|time| time.0.as_secs().max(1)),
            open_files: process.limits.open_files,
            file_bytes: process.limits.file_size.map(|size| size.0),
            processes: process.limits.processes,
        },
        content_type: process.content_type.map(Into::into),
        permanent_exit_codes: process.permanent_exit_codes,
        retry_exit_codes: process.retry_exit_codes,
        reports: process.reports,
        payload_file: process.payload_file,
        result_file: process.result_file,
        parents: process.parents,
        artifacts: process.artifacts,
        grace: handler.grace.0,
    }
}

#[cfg(feature = "wasm")]
pub(super) fn wasm(wasm: Wasm) -> WasmOptions {
    WasmOptions {
        module: wasm.module,
        argv: wasm.argv,
        arg_pattern: wasm.arg_pattern,
        env: wasm.env,
        env_pass: wasm.env_pass,
        memory_bytes: wasm.memory.map(|size| size.0),
        clock: wasm.clock,
        content_type: wasm.content_type.map(Into::into),
        permanent_exit_codes: wasm.permanent_exit_codes,
        retry_exit_codes: wasm.retry_exit_codes,
    }
}

/// `None` if the configuration is not valid.
#[cfg(feature = "export")]
pub(super) fn export(export: Export, config: &Config) -> Option<ExportOptions> {
    let connection = config.connections.iter().find(|connection| connection.name == export.connection)?;
    let database = match (&connection.sqlite, &connection.postgres) {
        (Some(path), _) => Database::Sqlite(path.clone()),
        (None, url) => Database::Postgres(PostgresOptions {
            url: url.clone()?,
            password_file: connection.password_file.clone(),
            ca: connection.ca.clone(),
        }),
    };
    let source = export.table.map(Source::Table).or(export.query.map(Source::Query))?;
    Some(ExportOptions { database, source, columns: export.columns, filters: export.filters, fonts: export.fonts })
}

pub(super) fn http(request: HttpRequest, handler: &Handler) -> HttpOptions {
    HttpOptions {
        url: request.url,
        method: method(request.method),
        headers: request.headers,
        success: request.success,
        retry: request.retry,
        cancel: request.cancel.map(|(cancel_method, url)| (method(cancel_method), url)),
        ca: request.ca,
        allowed_networks: request.allowed_networks,
        arg_pattern: handler.arg_pattern().ok().flatten(),
        grace: handler.grace.0,
    }
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}
