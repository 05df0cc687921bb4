//! Plain routes for simple scripts: a form or JSON in, short JSON out. `docs/http.md` documents them.
//!
//! Each route calls RPCs with the credentials of its caller and maps parameters and responses.

mod call;
mod exports;
mod server;
mod tasks;

use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Method, Request, Response, StatusCode};

use crate::model::ErrorCode;

use super::connect;
use super::context::Context;
use super::loopback::LoopbackClient;
use super::query::Query;
use super::response::{self, JSON, edge_error, error_with_status, method_not_allowed};

use call::{Call, Params};

/// Maximum size of a request body in bytes, unless payloads may be larger: 1 MiB with every byte escaped, and the other
/// parameters.
const BODY_BYTES_MAX: usize = 8 << 20;

struct Route {
    method: &'static str,
    /// `{id}` matches one non-empty segment.
    path: &'static str,
    /// HTTP status of a success.
    status: StatusCode,
    /// Returns the JSON of the response.
    handler: fn(Call) -> BoxFuture<'static, Result<String, Status>>,
}

macro_rules! route {
    ($method:literal, $path:literal, $status:ident, $handler:path) => {
        Route {
            method: $method,
            path: $path,
            status: StatusCode::$status,
            handler: |call| $handler(call).map_ok(|json| json.to_string()).boxed(),
        }
    };
}

/// A `GET` below this path starts a task, as in the system from which it comes.
pub const EXPORT_PREFIX: &str = "/data/export/";

const ROUTES: [Route; 11] = [
    route!("POST", "/api/submit", OK, tasks::submit),
    route!("GET", "/api/task/{id}", OK, tasks::get),
    route!("GET", "/api/tasks", OK, tasks::list),
    route!("GET", "/api/tasks/running", OK, tasks::list_running),
    route!("GET", "/api/tasks/stats", OK, server::task_stats),
    route!("POST", "/api/tasks/{id}/cancel", OK, tasks::cancel),
    route!("POST", "/api/clear-completed", OK, tasks::clear_completed),
    route!("GET", "/api/stats", OK, server::stats),
    route!("GET", "/data/export/{id}", OK, exports::export),
    route!("GET", "/data/export/{id}/", OK, exports::export),
    route!("POST", "/api/shutdown", ACCEPTED, server::shutdown),
];

impl Route {
    /// Finds the route of a path, and the `{id}` in the path.
    fn find(path: &str) -> Option<(&'static Self, String)> {
        ROUTES.iter().find_map(|route| Some((route, route.match_path(path)?)))
    }

    fn match_path(&self, path: &str) -> Option<String> {
        let Some((prefix, suffix)) = self.path.split_once("{id}") else {
            return (self.path == path).then(String::new);
        };
        let id = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let id = Some(id).filter(|id| !id.is_empty() && !id.contains('/'))?;
        Some(percent_encoding::percent_decode_str(id).decode_utf8().ok()?.into_owned())
    }

    async fn handle(&self, context: &Context, id: String, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let deadline = connect::deadline(&head.headers)?;
        let mut admission = context.admit(&head)?;
        let params = if self.method == "GET" {
            Params::from_query(head.uri.query())?
        } else {
            let unknown = Query::parse_strict_only(head.uri.query())?;
            let bytes = BODY_BYTES_MAX.max(context.payload_limit.message_bytes());
            let body = context.receive(&head, body, bytes, deadline, &mut admission).await?;
            Params::from_body(&head.headers, &body.bytes, unknown)?
        };
        let client = LoopbackClient::new(context, &head, deadline, admission);
        let memory = client.memory();
        let json = (self.handler)(Call { client, params, id }).await.map_err(call::with_parameters)? + "\n";
        Ok(memory.attach_to(response::with_content_type(self.status, JSON, json)))
    }
}

/// Handles a request to any path. Responds with 404 if it is not the path of a plain route.
pub async fn handle(context: &Context, request: Request<Body>) -> Response<Body> {
    let contract = &context.contract;
    let Some((route, id)) = Route::find(request.uri().path()) else {
        let status = edge_error(ErrorCode::Unsupported, "not found; `GET /` lists the routes");
        return error_with_status(StatusCode::NOT_FOUND, contract, &status);
    };
    let is_safe = !route.path.starts_with(EXPORT_PREFIX);
    let method = if *request.method() == Method::HEAD && is_safe { &Method::GET } else { request.method() };
    if method.as_str() != route.method {
        return method_not_allowed(contract, route.method);
    }
    match route.handle(context, id, request).await {
        Ok(response) => response,
        Err(status) => response::error(contract, &status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_by_path() {
        for (path, expected, id, method) in [
            ("/api/submit", "/api/submit", "", "POST"),
            ("/api/task/a:1", "/api/task/{id}", "a:1", "GET"),
            ("/api/task/a%2F1", "/api/task/{id}", "a/1", "GET"),
            ("/api/tasks", "/api/tasks", "", "GET"),
            ("/api/tasks/running", "/api/tasks/running", "", "GET"),
            ("/api/tasks/stats", "/api/tasks/stats", "", "GET"),
            ("/api/tasks/running/cancel", "/api/tasks/{id}/cancel", "running", "POST"),
            ("/api/clear-completed", "/api/clear-completed", "", "POST"),
            ("/api/stats", "/api/stats", "", "GET"),
            ("/api/shutdown", "/api/shutdown", "", "POST"),
            ("/data/export/leases", "/data/export/{id}", "leases", "GET"),
            ("/data/export/leases/", "/data/export/{id}/", "leases", "GET"),
        ] {
            let (route, found_id) = Route::find(path).unwrap();
            assert_eq!((route.path, found_id.as_str(), route.method), (expected, id, method));
        }
        for unknown in [
            "/api",
            "/api/",
            "/api/task",
            "/api/task/",
            "/api/task/a/b",
            "/api/submit/",
            "/api/tasks/x",
            "/api/tasks/x/y",
            "/api/tasks//cancel",
            "/data/export/",
            "/data/export/a/b",
            "/x",
        ] {
            assert!(Route::find(unknown).is_none(), "{unknown}");
        }
    }
}
