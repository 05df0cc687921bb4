//! Why the server does not start, or ends without a drain.

use std::io;
use std::net::SocketAddr;

use crate::api;
#[cfg(feature = "export")]
use crate::runners::export;
#[cfg(feature = "wasm")]
use crate::runners::wasm;
use crate::runners::{http, process};
use crate::store::StoreError;
use crate::telemetry::export::otlp::ExportError;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {description}")]
pub struct InvalidSetting {
    /// Such as `schedule[0].cron`.
    pub setting: String,
    pub description: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("failed to open the store: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Security(#[from] api::SecurityError),
    #[error("failed to listen on {address}: {source}; choose another address with --listen")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("failed to listen on {address}: {source}; choose another `server.health_listen`")]
    ListenForHealth { address: SocketAddr, source: io::Error },
    #[error(
        "failed to listen on {address} for Prometheus: {source}; choose another host or port \
         (OTEL_EXPORTER_PROMETHEUS_HOST, OTEL_EXPORTER_PROMETHEUS_PORT)"
    )]
    ListenForPrometheus {
        /// Host and port, or the address that the host has resolved to.
        address: String,
        source: io::Error,
    },
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("handler `{handler}`: {source}")]
    Handler { handler: String, source: process::OptionsError },
    #[error("handler `{handler}`: {source}")]
    HttpHandler { handler: String, source: http::OptionsError },
    #[cfg(feature = "export")]
    #[error("handler `{handler}`: {source}")]
    ExportHandler { handler: String, source: export::OptionsError },
    #[cfg(feature = "wasm")]
    #[error("handler `{handler}`: {source}")]
    WasmHandler { handler: String, source: wasm::OptionsError },
    #[cfg(feature = "wasm")]
    #[error(transparent)]
    WasmEngine(#[from] wasm::EngineError),
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error("the {part} has ended unexpectedly; the log names the cause")]
    Ended { part: &'static str },
    /// An operating-system call failed.
    #[error("failed to {action}: {source}")]
    Io { action: &'static str, source: io::Error },
}

impl StartError {
    /// The handler that cannot run.
    pub fn handler(&self) -> Option<&str> {
        match self {
            Self::Handler { handler, .. } | Self::HttpHandler { handler, .. } => Some(handler),
            #[cfg(feature = "export")]
            Self::ExportHandler { handler, .. } => Some(handler),
            #[cfg(feature = "wasm")]
            Self::WasmHandler { handler, .. } => Some(handler),
            _ => None,
        }
    }
}

/// For `map_err`: wraps an I/O error with the action that failed.
pub(super) fn failed_to(action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { action, source }
}
