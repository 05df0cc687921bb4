//! An OTLP collector that accepts and discards everything, so that it uses little CPU itself.

use std::convert::Infallible;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::runtime::Runtime;

use crate::cli::server_process::Result;

/// A running collector. It is stopped when this is dropped.
pub struct Collector {
    address: String,
    runtime: Option<Runtime>,
}

impl Collector {
    /// Starts a collector on a free port, in a separate thread.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("collector")
            .enable_all()
            .build()?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (connection, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // A broken connection is not an error here.
                    let _ =
                        builder.serve_connection(TokioIo::new(connection), hyper::service::service_fn(discard)).await;
                });
            }
            #[expect(unreachable_code, reason = "gives the block its error type")]
            Ok::<_, std::io::Error>(())
        });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// The endpoint for OTLP over gRPC.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type EmptyResponse = StreamBody<futures_util::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>;

/// Reads the request to its end and responds with an empty message and OK.
async fn discard(request: Request<Incoming>) -> Result<Response<EmptyResponse>, Infallible> {
    let mut body = request.into_body();
    // An error ends the body too.
    while let Some(Ok(_)) = body.frame().await {}
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;

    use super::*;

    #[tokio::test]
    async fn every_export_is_accepted() {
        let collector = Collector::start().unwrap();
        let mut client = TraceServiceClient::connect(collector.url()).await.unwrap();
        for _ in 0..2 {
            let response = client.export(ExportTraceServiceRequest::default()).await.unwrap().into_inner();
            assert!(response.partial_success.is_none());
        }
    }
}
