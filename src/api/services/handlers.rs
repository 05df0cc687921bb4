//! HandlerService: list the handlers, upload and delete WebAssembly modules.

use tonic::{Request, Response, Status, Streaming};

use crate::api::auth::{Caller, CallerExtractor, audit};
use crate::api::convert::{InvalidFields, handler};
use crate::api::status::into_status;
use crate::model::{HandlerName, MemoryPart};
use crate::proto::v1::{self, handler_service_server::HandlerService};
use crate::scheduler::{Draining, Handle, UnknownHandler};

pub struct Handlers {
    handle: Handle,
    callers: CallerExtractor,
}

impl Handlers {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }

    fn get(&self, name: &HandlerName) -> Result<v1::Handler, Status> {
        let catalog = self.handle.catalog();
        let found = catalog.handlers.get(name);
        let found = found.ok_or_else(|| into_status(UnknownHandler { handler: name.clone() }))?;
        Ok(handler::handler(&catalog, found))
    }

    /// `name` is set as soon as it is known.
    async fn put(
        &self,
        caller: &Caller,
        requests: Streaming<v1::PutHandlerRequest>,
        name: &mut String,
    ) -> Result<v1::Handler, Status> {
        let mut requests = Requests { handle: &self.handle, requests };
        let first = requests.next().await?.unwrap_or_default();
        let invalid = |field: &str, text: String| into_status(InvalidFields::one(field, text));
        let settings = first.handler;
        let settings = settings.ok_or_else(|| invalid("handler", "is required in the first message".to_owned()))?;
        *name = audit::name(&settings.name);
        let (upload, bytes) = handler::upload(settings).map_err(into_status)?;
        self.handle.check_upload(&upload.name).map_err(into_status)?;
        let memory = self.handle.memory().reserve_for(caller.sharer.clone(), MemoryPart::Requests, bytes as u64);
        let memory = memory.map_err(into_status)?;
        let mut module = Vec::with_capacity(bytes);
        let mut part = first.module;
        loop {
            if part.len() > bytes - module.len() {
                let text = format!("has more bytes than the {bytes} of `handler.module_bytes`");
                return Err(invalid("module", text));
            }
            module.extend_from_slice(&part);
            let Some(request) = requests.next().await? else { break };
            if request.handler.is_some() {
                return Err(invalid("handler", "is allowed in the first message only".to_owned()));
            }
            part = request.module;
        }
        if module.len() < bytes {
            let text = format!("ends after {} bytes, `handler.module_bytes` is {bytes}", module.len());
            return Err(invalid("module", text));
        }
        let name = upload.name.clone();
        self.handle.put_handler(upload, module, memory).await.map_err(into_status)?;
        self.get(&name)
    }
}

struct Requests<'a> {
    handle: &'a Handle,
    requests: Streaming<v1::PutHandlerRequest>,
}

impl Requests<'_> {
    /// `None` at the end.
    async fn next(&mut self) -> Result<Option<v1::PutHandlerRequest>, Status> {
        tokio::select! {
            request = self.requests.message() => request,
            () = self.handle.draining().cancelled_owned() => Err(into_status(Draining)),
        }
    }
}

fn handler_name(text: &str) -> Result<HandlerName, Status> {
    HandlerName::parse(text).map_err(|error| into_status(InvalidFields::one("name", error)))
}

#[tonic::async_trait]
impl HandlerService for Handlers {
    async fn list_handlers(
        &self,
        _request: Request<v1::ListHandlersRequest>,
    ) -> Result<Response<v1::ListHandlersResponse>, Status> {
        let catalog = self.handle.catalog();
        let handlers = catalog.handlers.values().map(|spec| handler::handler(&catalog, spec)).collect();
        Ok(Response::new(v1::ListHandlersResponse { handlers }))
    }

    async fn get_handler(
        &self,
        request: Request<v1::GetHandlerRequest>,
    ) -> Result<Response<v1::GetHandlerResponse>, Status> {
        let handler = self.get(&handler_name(&request.into_inner().name)?)?;
        Ok(Response::new(v1::GetHandlerResponse { handler: Some(handler) }))
    }

    async fn put_handler(
        &self,
        request: Request<Streaming<v1::PutHandlerRequest>>,
    ) -> Result<Response<v1::PutHandlerResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let mut name = String::new();
        let result = self.put(&caller, request.into_inner(), &mut name).await;
        audit::record(&caller, "PutHandler", name, &result);
        Ok(Response::new(v1::PutHandlerResponse { handler: Some(result?) }))
    }

    async fn delete_handler(
        &self,
        request: Request<v1::DeleteHandlerRequest>,
    ) -> Result<Response<v1::DeleteHandlerResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let name = request.into_inner().name;
        let deleted = match handler_name(&name) {
            Ok(name) => self.handle.delete_handler(name).await.map_err(into_status),
            Err(status) => Err(status),
        };
        audit::record(&caller, "DeleteHandler", audit::name(&name), &deleted);
        deleted?;
        Ok(Response::new(v1::DeleteHandlerResponse {}))
    }
}
