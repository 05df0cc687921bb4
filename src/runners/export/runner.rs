//! The runner of export handlers.

use std::io;
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Handle;

use super::attempt::{self, Summary};
use super::error::ExportError;
use super::input::Export;
use super::options::{ExportOptions, OptionsError};
use super::pdf::Fonts;
use super::request::Request;
use crate::artifacts::ArtifactError;
use crate::model::spec::JSON;
use crate::model::{Failure, FailureReason, Payload, StopMethod};
use crate::runners::{BoxFuture, Outcome, Run, RunReport, Runner};
use crate::telemetry::scope;
use crate::threads::in_background;

#[derive(Clone)]
pub struct ExportRunner {
    handler: Arc<ExportHandler>,
}

struct ExportHandler {
    options: ExportOptions,
    fonts: Fonts,
}

impl ExportRunner {
    /// Reads the fonts. Blocks.
    ///
    /// # Errors
    /// [`OptionsError`] names the file.
    pub fn new(options: ExportOptions) -> Result<Self, OptionsError> {
        let fonts = Fonts::read(&options.fonts)?;
        Ok(Self { handler: Arc::new(ExportHandler { options, fonts }) })
    }
}

impl Runner for ExportRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move {
            if let Err(failure) = run.check_args(None) {
                return Outcome::Failed(failure).into();
            }
            let (runtime, scope) = (Handle::current(), scope::current());
            let exported = in_background("export", move || {
                let _entered = scope.map(scope::enter);
                runtime.block_on(export(&handler, &run))
            });
            match exported.await.map_err(ExportError::from).flatten() {
                Ok(result) => Outcome::Completed(result),
                Err(ExportError::Stopped) => Outcome::Stopped(StopMethod::Token),
                Err(error) => Outcome::Failed(failure(error)),
            }
            .into()
        })
    }
}

/// Writes the file, and returns what it contains.
async fn export(handler: &ExportHandler, run: &Run) -> Result<Payload, ExportError> {
    if run.stop.cause().is_some() {
        return Err(ExportError::Stopped);
    }
    let request = Request::parse(&run.payload)?;
    let title = run.options.handler.as_str();
    let name = format!("{title}.{}", request.format.extension());
    let file = run.artifacts.create(&name, Some(request.format.content_type())).map_err(io::Error::from)?;
    let export = Export {
        options: &handler.options,
        request: &request,
        fonts: &handler.fonts,
        title,
        stop: &run.stop,
        progress: &*run.progress,
    };
    let Summary { rows, shortened } = attempt::run(&export, file).await?;
    let result = json!({ "file": name, "rows": rows, "more_rows": shortened.rows, "cut_cells": shortened.cells });
    Ok(Payload { data: result.to_string().into(), content_type: JSON.into() })
}

fn failure(error: ExportError) -> Failure {
    let (reason, is_permanent) = match &error {
        ExportError::Request(_) => (FailureReason::InvalidPayload, true),
        ExportError::Query(_) => (FailureReason::HandlerError, true),
        ExportError::Connection(_) | ExportError::File(_) | ExportError::Stopped => {
            (FailureReason::HandlerError, false)
        }
    };
    let failure = Failure::new(reason, error.to_string());
    match error {
        ExportError::File(error) => match error.downcast::<ArtifactError>() {
            Ok(error) => error.into(),
            Err(_) => failure,
        },
        _ => Failure { retryable: !is_permanent, ..failure },
    }
}
