//! Uploading and deleting handlers.

use std::sync::Arc;

use crate::model::{HandlerName, HandlerSource, Reservation};
use crate::runners::{Modules, UploadError};

use super::core::NewUpload;
use super::handle::Handle;
use super::message::Request;
#[cfg(feature = "wasm")]
use super::refusal::{BadField, Internal};
use super::refusal::{HandlerNotUploaded, Refusal, StoreUnavailable, WasmUnsupported};

impl Handle {
    /// Whether a handler of this name can be uploaded at present.
    ///
    /// # Errors
    /// [`HandlerNotUploaded`], [`WasmUnsupported`].
    pub fn check_upload(&self, name: &HandlerName) -> Result<(), Refusal> {
        if !cfg!(feature = "wasm") {
            return Err(WasmUnsupported.into());
        }
        match self.catalog().handlers.get(name).map(|spec| spec.source) {
            None | Some(HandlerSource::Upload(_)) => Ok(()),
            Some(source) => Err(HandlerNotUploaded { handler: name.clone(), found: source.name() }.into()),
        }
    }

    /// Adds or replaces a handler that runs this module. Completes when the module is compiled, and the module and the handler
    /// are durable and in use. Continues to its end if the caller does not wait. `memory` is that of the module.
    ///
    /// # Errors
    /// [`BadField`] with the field `module` or one of `handler`, [`HandlerNotUploaded`], `UnknownPool`, [`StoreUnavailable`],
    /// [`WasmUnsupported`], `Draining`.
    pub async fn put_handler(&self, upload: NewUpload, module: Vec<u8>, memory: Reservation) -> Result<(), Refusal> {
        let handle = self.clone();
        to_its_end(async move {
            // One after the other: compiling takes much CPU time and memory.
            let _turn = handle.inner.upload_turn.lock().await;
            handle.check_upload(&upload.name)?;
            let bytes = upload.settings.bytes();
            let compiling = handle.with_modules(move |modules| {
                let _memory = memory;
                let (digest, runner) = modules.upload(&upload.name, &upload.settings, &module).map_err(refusal)?;
                Ok((upload, digest, runner))
            });
            let result: Result<_, Refusal> = compiling.await;
            let result = match result {
                Ok((upload, module, runner)) => {
                    let upload = Box::new(upload);
                    handle.execute(bytes, |reply| Request::PutHandler { upload, module, runner, reply }).await
                }
                Err(refusal) => Err(refusal),
            };
            handle.with_modules(Modules::remove_unused).await;
            result
        })
        .await
    }

    /// Deletes an uploaded handler. Running attempts continue.
    ///
    /// # Errors
    /// `UnknownHandler`, [`HandlerNotUploaded`], [`StoreUnavailable`], `Draining`.
    pub async fn delete_handler(&self, name: HandlerName) -> Result<(), Refusal> {
        let handle = self.clone();
        to_its_end(async move {
            let _turn = handle.inner.upload_turn.lock().await;
            handle.execute(0, |reply| Request::DeleteHandler { name, reply }).await?;
            handle.with_modules(Modules::remove_unused).await;
            Ok(())
        })
        .await
    }

    /// Runs a function that blocks.
    async fn with_modules<T: Send + 'static>(&self, function: impl FnOnce(&Modules) -> T + Send + 'static) -> T {
        let modules = Arc::clone(&self.inner.modules);
        joined(tokio::task::spawn_blocking(move || function(&modules)).await)
    }
}

/// Runs a future to its end, also if its caller is dropped before.
async fn to_its_end<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    joined(tokio::spawn(future).await)
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn refusal(error: UploadError) -> Refusal {
    match error {
        #[cfg(feature = "wasm")]
        UploadError::Module(description) => BadField { field: "module".to_owned(), description }.into(),
        UploadError::Write { .. } => StoreUnavailable { cause: error.to_string() }.into(),
        #[cfg(not(feature = "wasm"))]
        UploadError::Unsupported => WasmUnsupported.into(),
        #[cfg(feature = "wasm")]
        UploadError::Engine(error) => Internal { cause: error.to_string() }.into(),
    }
}
