//! WebAssembly modules of a server: the engine that compiles them, and the files of those that callers have uploaded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "wasm")]
use parking_lot::Mutex;

use super::kept_files::{InUse, KeptFiles};
use super::runner::{BoxFuture, Outcome, Run, RunReport, Runner};
#[cfg(feature = "wasm")]
use super::wasm::{Engine, EngineError, WasmOptions, WasmRunner};
use crate::files::open_without_link;
use crate::model::{Failure, FailureReason, HandlerName, ModuleDigest, Upload, UploadSettings};

pub struct Modules {
    uploaded: KeptFiles,
    /// Directory of compiled modules; `None`: they are not kept.
    #[cfg(feature = "wasm")]
    compiled: Option<PathBuf>,
    /// `None` until a handler runs a module.
    #[cfg(feature = "wasm")]
    engine: Mutex<Option<Arc<Engine>>>,
}

/// Why a module cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// As the end of a sentence about the module.
    #[cfg(feature = "wasm")]
    #[error("{0}")]
    Module(String),
    #[error("failed to write `{path}`: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[cfg(feature = "wasm")]
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[cfg(not(feature = "wasm"))]
    #[error("this server was built without the feature `wasm`")]
    Unsupported,
}

impl Modules {
    /// `data` is the directory of uploaded modules and, if they are kept, of compiled ones.
    pub fn new(data: &Path, keeps_compiled: bool) -> Self {
        #[cfg(not(feature = "wasm"))]
        let _ = keeps_compiled;
        Self {
            uploaded: KeptFiles::new(data.join(ModuleDigest::DIRECTORY)),
            #[cfg(feature = "wasm")]
            compiled: keeps_compiled.then(|| data.join("wasm")),
            #[cfg(feature = "wasm")]
            engine: Mutex::default(),
        }
    }

    /// Starts the engine if no handler has needed it before.
    ///
    /// # Errors
    /// When the system lacks what it needs.
    #[cfg(feature = "wasm")]
    pub fn engine(&self) -> Result<Arc<Engine>, EngineError> {
        let mut engine = self.engine.lock();
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        Ok(Arc::clone(engine.insert(Arc::new(Engine::new(self.compiled.as_deref())?))))
    }

    /// Compiles a module and stores it durably under its digest. It is kept as long as the runner exists. Blocks.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn upload(
        &self,
        name: &HandlerName,
        settings: &UploadSettings,
        module: &[u8],
    ) -> Result<(ModuleDigest, Arc<dyn Runner>), UploadError> {
        let runner = self.runner(name, settings, module)?;
        let digest = ModuleDigest::of(module);
        let file = digest.file_name();
        let kept = self.uploaded.mark(&file);
        if !self.read(&file).is_ok_and(|stored| stored == module) {
            let failed = |source| UploadError::Write { path: self.uploaded.path(&file), source };
            self.uploaded.write(&file, module).map_err(failed)?;
        }
        Ok((digest, Arc::new(UploadedRunner { runner: Ok(runner), _kept: kept })))
    }

    /// The runner of an uploaded handler. If its module cannot be used, its attempts fail with the reason. Blocks.
    pub fn load(&self, name: &HandlerName, upload: &Upload) -> Arc<dyn Runner> {
        let file = upload.module.file_name();
        let kept = self.uploaded.mark(&file);
        let read = self.read(&file).and_then(|module| match ModuleDigest::of(&module) {
            found if found == upload.module => Ok(module),
            _ => Err(io::Error::other("its content has changed since the upload")),
        });
        let runner = match read {
            Ok(module) => self.runner(name, &upload.settings, &module).map_err(|error| error.to_string()),
            Err(error) => Err(format!("`{}` cannot be read: {error}", self.uploaded.path(&file).display())),
        };
        if let Err(problem) = &runner {
            tracing::error!(handler = %name, problem, "attempts of an uploaded handler will fail; upload its module again");
        }
        Arc::new(UploadedRunner { runner: runner.map_err(Into::into), _kept: kept })
    }

    /// Removes the files of uploaded and compiled modules that nothing uses. Blocks.
    pub fn remove_unused(&self) {
        self.uploaded.remove_unused();
        #[cfg(feature = "wasm")]
        if let Some(engine) = &*self.engine.lock() {
            engine.remove_unused();
        }
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        let mut module = Vec::new();
        io::Read::read_to_end(&mut open_without_link(&self.uploaded.path(file))?, &mut module)?;
        Ok(module)
    }

    #[cfg(feature = "wasm")]
    fn runner(
        &self,
        name: &HandlerName,
        settings: &UploadSettings,
        module: &[u8],
    ) -> Result<Arc<dyn Runner>, UploadError> {
        let options = WasmOptions::of_upload(name, settings);
        let runner = WasmRunner::of_upload(options, module, self.engine()?);
        Ok(Arc::new(runner.map_err(|error| UploadError::Module(error.to_string()))?))
    }

    #[cfg(not(feature = "wasm"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn runner(&self, _: &HandlerName, _: &UploadSettings, _: &[u8]) -> Result<Arc<dyn Runner>, UploadError> {
        Err(UploadError::Unsupported)
    }
}

struct UploadedRunner {
    /// Or why it cannot run.
    runner: Result<Arc<dyn Runner>, Box<str>>,
    _kept: InUse,
}

impl Runner for UploadedRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        match &self.runner {
            Ok(runner) => runner.run(run),
            Err(problem) => {
                let text = format!("the uploaded module cannot be used: {problem}");
                Box::pin(async { Outcome::Failed(Failure::new(FailureReason::HandlerError, text)).into() })
            }
        }
    }
}
