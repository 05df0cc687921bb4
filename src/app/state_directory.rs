//! The directory where a server keeps its store and the files of tasks, and its processes their working directories.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::{StartError, failed_to};
use super::registry::Hosts;
use crate::artifacts::{self, ArtifactStore, Bucket};
use crate::config::Config;
use crate::files::create_new_private_directory;
use crate::runners::Modules;
use crate::runners::process::Host;

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

    /// The files that tasks leave.
    pub fn artifacts(&self, config: &Config) -> ArtifactStore {
        let directory = self.path.join("artifacts");
        let settings = &config.artifacts;
        let bucket = settings.bucket().map(|(name, prefix)| Bucket { name, prefix });
        ArtifactStore::new(artifacts::Options { directory, bucket, limits: settings.limits(), age: settings.age.0 })
    }

    /// The WebAssembly modules of handlers.
    pub fn modules(&self) -> Arc<Modules> {
        Arc::new(Modules::new(&self.path, self.store.is_some()))
    }

    /// Prepares the processes of handlers. A supervisor is started only if a handler runs processes.
    pub fn hosts(&self, config: &Config, instance: &str, modules: Arc<Modules>) -> Result<Hosts, StartError> {
        let exe = Hosts::exe_for(config)?;
        let process = Host::new(&self.path, instance, exe.as_deref());
        Ok(Hosts { process: Arc::new(process.map_err(failed_to("prepare the processes of handlers"))?), modules })
    }
}
