//! A channel whose calls end if the server does not begin to answer, also while the connection is being opened.
//!
//! The channel of the library has a limit for a TCP connection and one for an answer, but none for a handshake of TLS.

use std::error::Error;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Channel;

/// Limit for one answer, or for the beginning of a stream; longer than a server waits for the end of a task in one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// The same for a call that sends a module first, which the server then compiles.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(15);
const UPLOAD: &str = "/lineshaft.v1.HandlerService/PutHandler";

/// Fails a call with DEADLINE_EXCEEDED if its answer has not begun after 90 seconds, or 15 minutes for an upload.
#[derive(Clone, Debug)]
pub struct BoundedChannel(pub Channel);

impl Service<Request<Body>> for BoundedChannel {
    type Response = Response<Body>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = if request.uri().path() == UPLOAD { UPLOAD_TIMEOUT } else { CALL_TIMEOUT };
        let call = tokio::time::timeout(limit, self.0.call(request));
        Box::pin(async move {
            let answered = call.await.map_err(|_| {
                let seconds = limit.as_secs();
                Status::deadline_exceeded(format!("no connection and answer within {seconds}s"))
            });
            answered?.map_err(Into::into)
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::client::Client;
    use crate::proto::v1;

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_if_the_server_answers_nothing() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        for scheme in ["http", "https"] {
            let client = Client::new(format!("{scheme}://{address}")).unwrap();
            let started = tokio::time::Instant::now();
            let error = client.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap_err();
            assert!(started.elapsed() <= CALL_TIMEOUT, "{scheme}: {:?}", started.elapsed());
            assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&error.code()), "{scheme}: {error:?}");
        }
    }
}
