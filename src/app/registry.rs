//! Builds the runner of each configured handler.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::{StartError, failed_to};
use super::options;
use crate::config::{Builtin, Config, Handler, Launch};
use crate::function::Handlers;
use crate::model::HandlerSpec;
use crate::runners::builtin::{Compute, Expression, Heavy, Io};
#[cfg(feature = "export")]
use crate::runners::export::ExportRunner;
use crate::runners::http::HttpRunner;
use crate::runners::process::{Host, ProcessRunner, preflight};
#[cfg(feature = "wasm")]
use crate::runners::wasm::WasmRunner;
use crate::runners::{FunctionRunner, Modules, Runner, Runners};

/// What the runners of all handlers share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hosts {
    pub process: Arc<Host>,
    pub modules: Arc<Modules>,
}

impl Hosts {
    /// The program of the supervisor, if the configuration needs one.
    pub fn exe_for(config: &Config) -> Result<Option<PathBuf>, StartError> {
        let exe = config.handlers.iter().any(Handler::is_process).then(std::env::current_exe);
        exe.transpose().map_err(failed_to("find the server's own binary"))
    }

    /// Starts the supervisor if the handlers of the configuration need it and earlier ones did not.
    fn prepare(&self, config: &Config) -> Result<(), StartError> {
        if let Some(exe) = Self::exe_for(config)? {
            self.process.start_supervisor(&exe).map_err(failed_to("prepare the processes of handlers"))?;
        }
        Ok(())
    }
}

/// Blocks.
pub(super) fn build(config: &Config, functions: &Handlers, hosts: &Hosts) -> Result<Runners, StartError> {
    hosts.prepare(config)?;
    let catalog = config.catalog();
    let mut runners = Runners::new();
    for handler in &config.handlers {
        let spec = catalog.handlers.values().find(|spec| spec.name.as_str() == handler.name);
        let (Some(spec), Some(launch)) = (spec, handler.launch()) else { continue };
        if let Some(runner) = runner(launch, config, handler, spec, functions, hosts)? {
            runners.insert(spec.name.clone(), runner);
        }
    }
    Ok(runners)
}

/// `None` if the handler does not run here.
fn runner(
    launch: Launch,
    #[cfg_attr(not(feature = "export"), expect(unused_variables, reason = "only exports have a connection"))]
    config: &Config,
    handler: &Handler,
    spec: &HandlerSpec,
    functions: &Handlers,
    hosts: &Hosts,
) -> Result<Option<Arc<dyn Runner>>, StartError> {
    let name = &handler.name;
    let runner: Arc<dyn Runner> = match launch {
        // Runs in remote workers.
        Launch::Remote => return Ok(None),
        Launch::Function => match functions.get(name) {
            Some(found) => Arc::new(FunctionRunner::new(found.function.clone(), spec.grace)),
            None => return Ok(None),
        },
        Launch::Builtin(builtin) => builtin_runner(builtin, handler.limits.memory.map(|memory| memory.0)),
        Launch::Http(request) => {
            let runner = HttpRunner::new(options::http(*request, handler));
            Arc::new(runner.map_err(|source| StartError::HttpHandler { handler: name.clone(), source })?)
        }
        Launch::Process(process) => {
            let options = options::process(*process, handler);
            // A program that is installed later is found by later attempts.
            if let Err(problem) = preflight(&options) {
                tracing::warn!(handler = name, problem, "attempts of a handler will fail");
            }
            let runner = ProcessRunner::new(options, hosts.process.clone());
            Arc::new(runner.map_err(|source| StartError::Handler { handler: name.clone(), source })?)
        }
        #[cfg(feature = "export")]
        Launch::Export(export) => match options::export(*export, config) {
            Some(options) => {
                let runner = ExportRunner::new(options);
                Arc::new(runner.map_err(|source| StartError::ExportHandler { handler: name.clone(), source })?)
            }
            None => return Ok(None),
        },
        #[cfg(feature = "wasm")]
        Launch::Wasm(wasm) => {
            let runner = WasmRunner::new(options::wasm(*wasm), hosts.modules.engine()?);
            Arc::new(runner.map_err(|source| StartError::WasmHandler { handler: name.clone(), source })?)
        }
        // The configuration is not valid then.
        #[cfg(not(feature = "wasm"))]
        Launch::Wasm(_) => return Ok(None),
        #[cfg(not(feature = "export"))]
        Launch::Export(_) => return Ok(None),
    };
    Ok(Some(runner))
}

fn builtin_runner(builtin: Builtin, memory_max: Option<u64>) -> Arc<dyn Runner> {
    match builtin {
        Builtin::Compute => Arc::new(Compute),
        Builtin::Io => Arc::new(Io),
        Builtin::Expression => Arc::new(Expression::default()),
        Builtin::Heavy => Arc::new(Heavy::new(memory_max)),
    }
}
