//! Plain routes for simple scripts: forms or JSON in, small JSON out. `docs/http.md` is their manual.
//!
//! Each is a thin adapter over RPCs, asked through the same guard as everybody's.

mod fields;
mod stats;
mod tasks;

use serde_json::Value;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Method, Request, Response, StatusCode};

use crate::model::ErrorCode;

use super::body::{self, Bounds};
use super::connect;
use super::context::Context;
use super::loopback::LoopbackClient;
use super::response::{edge, refusal, refusal_as, value, wrong_method};

use fields::Fields;

/// Bytes of a request's body: the largest payload, escaped to the last byte, and the rest.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What an adapter makes of a request.
type Answer = Result<(StatusCode, Value), Status>;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Submit,
    Task(&'a str),
    Tasks,
    Running,
    TaskStats,
    Cancel(&'a str),
    ClearCompleted,
    Stats,
    Shutdown,
}

impl<'a> Route<'a> {
    /// The table.
    fn of(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix("/api/")?.split('/');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        Some(match parts {
            [Some("submit"), None, ..] => Self::Submit,
            [Some("task"), Some(id), None, _] if !id.is_empty() => Self::Task(id),
            [Some("tasks"), None, ..] => Self::Tasks,
            [Some("tasks"), Some("running"), None, _] => Self::Running,
            [Some("tasks"), Some("stats"), None, _] => Self::TaskStats,
            [Some("tasks"), Some(id), Some("cancel"), None] if !id.is_empty() => Self::Cancel(id),
            [Some("clear-completed"), None, ..] => Self::ClearCompleted,
            [Some("stats"), None, ..] => Self::Stats,
            [Some("shutdown"), None, ..] => Self::Shutdown,
            _ => return None,
        })
    }

    /// The one method that it answers.
    const fn method(self) -> &'static str {
        match self {
            Self::Task(_) | Self::Tasks | Self::Running | Self::TaskStats | Self::Stats => "GET",
            Self::Submit | Self::Cancel(_) | Self::ClearCompleted | Self::Shutdown => "POST",
        }
    }

    async fn answer(self, client: &LoopbackClient, fields: Fields) -> Answer {
        match self {
            Self::Submit => tasks::submit(client, fields).await,
            Self::Task(id) => tasks::get(client, fields, decoded(id)).await,
            Self::Tasks => tasks::list(client, fields).await,
            Self::Running => tasks::running(client, fields).await,
            Self::Cancel(id) => tasks::cancel(client, fields, decoded(id)).await,
            Self::ClearCompleted => tasks::clear(client, fields).await,
            Self::TaskStats => stats::of_tasks(client, fields).await,
            Self::Stats => stats::of_everything(client, fields).await,
            Self::Shutdown => stats::shutdown(client, fields).await,
        }
    }
}

/// An id as it stands in a path.
fn decoded(id: &str) -> String {
    percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned()
}

/// Answers a request, if its path is one of these.
pub async fn answer(context: &Context, request: Request<Body>) -> Option<Response<Body>> {
    let (head, body) = request.into_parts();
    let route = Route::of(head.uri.path())?;
    let contract = &context.contract;
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    if method.as_str() != route.method() {
        return Some(wrong_method(contract, route.method()));
    }
    let answered = async {
        let deadline = connect::deadline(&head.headers)?;
        let admission = context.admit(&head)?;
        let fields = if method == Method::GET {
            Fields::of_query(head.uri.query().unwrap_or_default())
        } else {
            let bounds = Bounds { bytes: BODY_BYTES_MAX, time: context.body_timeout };
            let body = body::read(&head.headers, body, bounds, deadline).await?;
            Fields::of_body(&head.headers, &body)?
        };
        route.answer(&LoopbackClient::new(context, &head, deadline, admission), fields).await
    };
    Some(match answered.await {
        Ok((status, content)) => value(status, &content),
        Err(refused) => refusal(contract, &refused),
    })
}

/// The answer where there is nothing.
pub fn nothing(context: &Context, path: &str) -> Response<Body> {
    let refused = edge(ErrorCode::Unsupported, format!("there is nothing at {path}; GET / tells what there is"));
    refusal_as(StatusCode::NOT_FOUND, &context.contract, &refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_path_and_no_other() {
        for (path, route, method) in [
            ("/api/submit", Route::Submit, "POST"),
            ("/api/task/a:1", Route::Task("a:1"), "GET"),
            ("/api/tasks", Route::Tasks, "GET"),
            ("/api/tasks/running", Route::Running, "GET"),
            ("/api/tasks/stats", Route::TaskStats, "GET"),
            ("/api/tasks/running/cancel", Route::Cancel("running"), "POST"),
            ("/api/clear-completed", Route::ClearCompleted, "POST"),
            ("/api/stats", Route::Stats, "GET"),
            ("/api/shutdown", Route::Shutdown, "POST"),
        ] {
            assert_eq!(Route::of(path), Some(route));
            assert_eq!(route.method(), method);
        }
        for nowhere in
            ["/api", "/api/", "/api/task", "/api/task/", "/api/submit/", "/api/tasks/x", "/api/tasks/x/y", "/x"]
        {
            assert_eq!(Route::of(nowhere), None, "{nowhere}");
        }
    }
}
