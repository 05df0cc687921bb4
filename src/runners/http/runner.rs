//! The runner of HTTP handlers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::exchange;
use super::handler::{Attempt, HttpHandler};
use super::options::{HttpOptions, OptionsError};
use crate::model::error::innermost;
use crate::model::{HandlerName, StopMethod};
use crate::runners::{BoxFuture, Outcome, Run, RunReport, Runner, StopCause};

/// Time of the call of a cancel URL.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct HttpRunner {
    handler: Arc<HttpHandler>,
}

impl HttpRunner {
    /// Reads the files that the options name. Blocks.
    ///
    /// # Errors
    /// [`OptionsError`] names what is missing.
    pub fn new(options: HttpOptions) -> Result<Self, OptionsError> {
        Ok(Self { handler: Arc::new(HttpHandler::new(options)?) })
    }
}

impl Runner for HttpRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move { report(&handler, run).await })
    }
}

/// Calls the service, and obeys the stop signal. Without a cancel URL the end of the connection tells the service to stop;
/// with one, the response tells that it has stopped.
async fn report(handler: &Arc<HttpHandler>, run: Run) -> RunReport {
    if let Err(failure) = handler.check_args(&run) {
        return Outcome::Failed(failure).into();
    }
    let Run { stop, payload, options, result_memory, .. } = &run;
    if stop.cause().is_some() {
        // Nothing was sent.
        let is_orderly = handler.cancel.is_some() && !stop.kill_is_due();
        return Outcome::Stopped(if is_orderly { StopMethod::Token } else { StopMethod::Abort }).into();
    }
    let attempt = Arc::new(Attempt::of(&run));
    let (payload, memory) = (payload.clone(), result_memory.clone());
    let mut exchange = pin!(exchange::run(handler, &attempt, payload, &options.content_type, memory));
    let mut was_asked = false;
    loop {
        tokio::select! {
            biased;
            report = &mut exchange => {
                // Work that was completed while the server drains need not run again.
                let is_completed = matches!(report.outcome, Outcome::Completed(_));
                let is_kept = is_completed && stop.requested_cause() == Some(StopCause::Drain);
                return if was_asked && !is_kept { Outcome::Stopped(StopMethod::Token).into() } else { report };
            }
            cause = stop.wait(StopCause::Timeout), if !was_asked => {
                if !stop.was_requested() {
                    // The deadline has passed.
                    stop.request(cause, handler.grace);
                }
                was_asked = true;
                if handler.cancel.is_none() {
                    return Outcome::Stopped(StopMethod::Abort).into();
                }
                tokio::spawn(cancel(Arc::clone(handler), Arc::clone(&attempt), options.handler.clone()));
            }
            () = stop.wait_for_kill(), if was_asked => return Outcome::Stopped(StopMethod::Abort).into(),
        }
    }
}

/// Calls the cancel URL, at best: whether the service has stopped shows in its response to the attempt.
async fn cancel(handler: Arc<HttpHandler>, attempt: Arc<Attempt>, name: HandlerName) {
    let Some(endpoint) = &handler.cancel else { return };
    let call = async {
        let _permit = handler.cancels.acquire().await.map_err(|error| error.to_string())?;
        let request = handler.request(endpoint, &attempt, None).await.map_err(|outcome| format!("{outcome:?}"))?;
        let response = endpoint.client.request(request).await.map_err(|error| innermost(&error))?;
        // Gone already, or not there yet.
        let is_accepted = response.status().is_success() || matches!(response.status().as_u16(), 404 | 409 | 410);
        if is_accepted { Ok(()) } else { Err(format!("the service answered {}", response.status())) }
    };
    let late = |_| format!("no response within {CANCEL_TIMEOUT:?}");
    if let Err(error) = timeout(CANCEL_TIMEOUT, call).await.map_err(late).flatten() {
        tracing::warn!(handler = %name, error, "failed to call the cancel URL of an attempt");
    }
}
