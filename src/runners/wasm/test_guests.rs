//! Guests for tests, built from the texts in `tests/wasm/guests`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use super::{Engine, OptionsError, WasmOptions, WasmRunner};
use crate::runners::Runner;

/// A module of WASI preview 1.
pub(in crate::runners) fn module(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wasm/guests").join(name).with_extension("wat");
    wat::parse_file(path).unwrap()
}

/// The same guest as a component of WASI 0.2.
pub(in crate::runners) fn component(name: &str) -> Vec<u8> {
    let encoder = ComponentEncoder::default().module(&module(name)).unwrap();
    let adapter = WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER;
    encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter).unwrap().encode().unwrap()
}

/// An engine without a cache, and a directory for the files of modules.
pub(in crate::runners) struct Guests {
    directory: TempDir,
    pub(super) engine: Arc<Engine>,
}

impl Guests {
    pub(in crate::runners) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), engine: Arc::new(Engine::new(None).unwrap()) }
    }

    pub(super) fn file(&self, binary: &[u8]) -> PathBuf {
        let path = self.directory.path().join("guest.wasm");
        std::fs::write(&path, binary).unwrap();
        path
    }

    pub(super) fn load(&self, binary: &[u8], options: WasmOptions) -> Result<WasmRunner, OptionsError> {
        WasmRunner::new(WasmOptions { module: self.file(binary), ..options }, Arc::clone(&self.engine))
    }

    pub(in crate::runners) fn runner(&self, binary: &[u8]) -> Arc<dyn Runner> {
        self.runner_with(binary, WasmOptions::default())
    }

    pub(super) fn runner_with(&self, binary: &[u8], options: WasmOptions) -> Arc<dyn Runner> {
        Arc::new(self.load(binary, options).unwrap())
    }
}
