//! Whether process handlers can run: their settings, programs and working directories.

use crate::config::{Handler, Launch};
use crate::runners::process::preflight;

use super::super::options;
use super::report::Finding;

pub(super) fn check(handlers: &[Handler]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut programs = 0;
    for handler in handlers {
        let Some(Launch::Process(launch)) = handler.launch() else { continue };
        programs += 1;
        if let Err(problem) = preflight(&options::process(*launch, handler)) {
            let advice =
                "install the program, make it executable, or correct the handler's settings; attempts would fail";
            findings.push(
                Finding::failure("handlers", format!("handler `{}`: {problem}", handler.name)).with_advice(advice),
            );
        }
    }
    if findings.is_empty() && programs > 0 {
        let noun = if programs == 1 { "program" } else { "programs" };
        findings.push(Finding::ok("handlers", format!("{programs} {noun} found")));
    }
    findings
}
