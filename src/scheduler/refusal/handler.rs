//! Conditions of uploads.

use crate::model::{Coded, Details, ErrorCode, HandlerName};

/// Only uploads can be replaced and deleted by calls.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "handler `{handler}` was not uploaded, its source is `{found}`: a call can neither replace nor delete it; \
     change it at its source, or choose another name"
)]
pub struct HandlerNotUploaded {
    pub handler: HandlerName,
    pub found: &'static str,
}

impl Coded for HandlerNotUploaded {
    fn code(&self) -> ErrorCode {
        ErrorCode::HandlerNotUploaded
    }

    fn details(&self) -> Details {
        let precondition = (format!("handler:{}", self.handler), "must be uploaded".to_owned());
        Details { precondition: Some(precondition), ..Details::default() }.with_metadata("source", self.found)
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this server cannot run WebAssembly: it was built without the feature `wasm`")]
pub struct WasmUnsupported;

impl Coded for WasmUnsupported {
    fn code(&self) -> ErrorCode {
        ErrorCode::Unsupported
    }
}
