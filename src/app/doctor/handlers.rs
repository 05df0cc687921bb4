//! Whether process and HTTP handlers can run: their settings, programs, working directories and files.

use crate::config::{Handler, Launch};
use crate::runners::http::HttpRunner;
use crate::runners::process::preflight;

use super::super::options;
use super::report::Finding;

pub(super) fn check(handlers: &[Handler]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut programs = 0;
    for handler in handlers {
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
            _ => {}
        }
    }
    if findings.is_empty() && programs > 0 {
        let noun = if programs == 1 { "program" } else { "programs" };
        findings.push(Finding::ok("handlers", format!("{programs} {noun} found")));
    }
    findings
}
