//! HandlerService: list the registered handlers.

use tonic::{Request, Response, Status};

use crate::api::convert::{InvalidFields, task, time::duration};
use crate::api::status::into_status;
use crate::model::{Catalog, HandlerName, HandlerSpec, limits};
use crate::proto::v1::{self, handler_service_server::HandlerService};
use crate::scheduler::{Handle, UnknownHandler};

pub struct Handlers {
    handle: Handle,
}

impl Handlers {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

fn message(catalog: &Catalog, spec: &HandlerSpec) -> v1::Handler {
    let pool_timeout = catalog.pools.get(&spec.pool).map(|pool| pool.timeout);
    let timeout = spec.timeout.or(pool_timeout).unwrap_or(limits::TIMEOUT_DEFAULT);
    v1::Handler {
        name: spec.name.to_string(),
        runner: spec.runner.to_owned(),
        description: spec.description.clone(),
        payload_description: spec.payload_description.clone(),
        pool: spec.pool.to_string(),
        allowed_pools: spec.allowed_pools.iter().map(ToString::to_string).collect(),
        timeout: Some(duration(timeout)),
        retry: Some(task::retry(&spec.retry)),
        arg_pattern: spec.arg_pattern.as_ref().map_or_else(String::new, |pattern| pattern.as_str().to_owned()),
        grace: Some(duration(spec.grace)),
        source: spec.source.name().to_owned(),
        payload_schema: spec.payload_schema.as_ref().map_or_else(String::new, |schema| schema.as_str().to_owned()),
    }
}

#[tonic::async_trait]
impl HandlerService for Handlers {
    async fn list_handlers(
        &self,
        _request: Request<v1::ListHandlersRequest>,
    ) -> Result<Response<v1::ListHandlersResponse>, Status> {
        let catalog = self.handle.catalog();
        let handlers = catalog.handlers.values().map(|spec| message(&catalog, spec)).collect();
        Ok(Response::new(v1::ListHandlersResponse { handlers }))
    }

    async fn get_handler(
        &self,
        request: Request<v1::GetHandlerRequest>,
    ) -> Result<Response<v1::GetHandlerResponse>, Status> {
        let name = HandlerName::parse(&request.into_inner().name);
        let name = name.map_err(|error| into_status(InvalidFields::one("name", error)))?;
        let catalog = self.handle.catalog();
        let found = catalog.handlers.get(&name);
        let found = found.ok_or_else(|| into_status(UnknownHandler { handler: name.clone() }))?;
        Ok(Response::new(v1::GetHandlerResponse { handler: Some(message(&catalog, found)) }))
    }
}
