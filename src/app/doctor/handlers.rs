//! Whether handlers can run: their settings, programs, modules, working directories and files.

#[cfg(feature = "wasm")]
use std::sync::Arc;

use crate::config::{Config, Launch};
#[cfg(feature = "export")]
use crate::runners::export::ExportRunner;
use crate::runners::http::HttpRunner;
use crate::runners::process::preflight;

#[cfg(feature = "wasm")]
use crate::runners::wasm::{Engine, WasmOptions, WasmRunner};

use super::super::options;
use super::report::Finding;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut programs = 0;
    for handler in &config.handlers {
        let failed = |problem: String| Finding::failure("handlers", format!("handler `{}`: {problem}", handler.name));
        match handler.launch() {
            Some(Launch::Process(launch)) => {
                programs += 1;
                if let Err(problem) = preflight(&options::process(*launch, handler)) {
                    let advice = "install the program, make it executable, or correct the handler's settings; \
                                  attempts would fail";
                    findings.push(failed(problem).with_advice(advice));
                }
            }
            Some(Launch::Http(request)) => {
                if let Err(error) = HttpRunner::new(options::http(*request, handler)) {
                    let advice = "the server would not start; correct the settings in [handler.http]";
                    findings.push(failed(error.to_string()).with_advice(advice));
                }
            }
            #[cfg(feature = "export")]
            Some(Launch::Export(export)) => {
                let built = options::export(*export, config).map(ExportRunner::new);
                if let Some(Err(error)) = built {
                    let advice = "the server would not start; correct the settings in [handler.export]";
                    findings.push(failed(error.to_string()).with_advice(advice));
                }
            }
            #[cfg(feature = "wasm")]
            Some(Launch::Wasm(launch)) => {
                if let Err(problem) = check_module(options::wasm(*launch)) {
                    let advice = "the server would not start; correct the module or the handler's settings";
                    findings.push(failed(problem).with_advice(advice));
                }
            }
            _ => {}
        }
    }
    if findings.is_empty() && programs > 0 {
        let noun = if programs == 1 { "program" } else { "programs" };
        findings.push(Finding::ok("handlers", format!("{programs} {noun} found")));
    }
    findings
}

#[cfg(feature = "wasm")]
fn check_module(options: WasmOptions) -> Result<(), String> {
    let engine = Engine::new(None).map_err(|error| error.to_string())?;
    WasmRunner::new(options, Arc::new(engine)).map(drop).map_err(|error| error.to_string())
}
