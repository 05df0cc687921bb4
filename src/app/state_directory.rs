//! The directory where a server keeps its store, and its processes their working directories.

use std::path::PathBuf;
#[cfg(feature = "wasm")]
use std::sync::Arc;

use super::error::{StartError, failed_to};
use crate::config::{Config, Launch};
use crate::files::create_new_private_directory;
use crate::runners::process::Host;
#[cfg(feature = "wasm")]
use crate::runners::wasm::Engine;

pub(super) struct StateDirectory {
    /// `None` for a store in memory.
    pub store: Option<PathBuf>,
    path: PathBuf,
    /// Removed when the server ends.
    _temporary: Option<TemporaryDirectory>,
}

struct TemporaryDirectory(PathBuf);

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Files that cannot be removed are in the system's temporary directory, which is cleaned up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl StateDirectory {
    pub fn new(config: &Config) -> Result<Self, StartError> {
        if !config.store.memory {
            let path = config.store.directory.clone();
            return Ok(Self { store: Some(path.clone()), path, _temporary: None });
        }
        let path = std::env::temp_dir().join(format!("lineshaft-{}", uuid::Uuid::new_v4()));
        create_new_private_directory(&path).map_err(failed_to("create a temporary directory"))?;
        Ok(Self { store: None, path: path.clone(), _temporary: Some(TemporaryDirectory(path)) })
    }

    /// Prepares the processes of handlers. A supervisor is started only if a handler runs processes.
    pub fn process_host(&self, config: &Config, instance: &str) -> Result<Host, StartError> {
        let is_process = |launch: Option<Launch>| matches!(launch, Some(Launch::Process(_)));
        let runs_processes = config.handlers.iter().any(|handler| is_process(handler.launch()));
        let exe = runs_processes.then(std::env::current_exe).transpose();
        let exe = exe.map_err(failed_to("find the server's own binary"))?;
        Host::new(&self.path, instance, exe.as_deref()).map_err(failed_to("prepare the processes of handlers"))
    }

    /// Prepares the WebAssembly modules of handlers, if there are any.
    #[cfg(feature = "wasm")]
    pub fn wasm_engine(&self, config: &Config) -> Result<Option<Arc<Engine>>, StartError> {
        let is_wasm = |launch: Option<Launch>| matches!(launch, Some(Launch::Wasm(_)));
        if !config.handlers.iter().any(|handler| is_wasm(handler.launch())) {
            return Ok(None);
        }
        let cache = self.store.as_ref().map(|directory| directory.join("wasm"));
        Ok(Some(Arc::new(Engine::new(cache.as_deref())?)))
    }
}
