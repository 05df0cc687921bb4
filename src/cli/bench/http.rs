//! Scenario `http`: tasks that call a service, compared with a client that calls it directly.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::Status;

use super::end_to_end::BatchLoad;
use super::load::{Window, closed_loop};
use super::report::{Report, Row};
use super::server::{BATCH, Server, config};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::proto::v1::SubmitTaskRequest;

/// Calls at a time.
const CONCURRENCY: usize = 256;
/// Maximum number of unfinished tasks.
const BACKLOG: usize = 10_000;

/// Calls a service that answers at once: directly, by the server, and directly again.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let service = Service::start()?;
    let before = direct_rate(settings, service.address).await?;
    let handler = format!(
        "{}[[pool]]\nname = \"web\"\nkind = \"async\"\nsize = {CONCURRENCY}\n\
         [[handler]]\nname = \"call\"\nrunner = \"http\"\npool = \"web\"\n\
         [handler.http]\nurl = \"http://{}/\"\nallowed_networks = [\"127.0.0.1\"]\n",
        config(true, None),
        service.address
    );
    let server = Server::start_with_config(settings, &handler).await?;
    let task = SubmitTaskRequest { handler: "call".to_owned(), ..SubmitTaskRequest::default() };
    let rate = BatchLoad { task, batch: BATCH, backlog: BACKLOG, namespaces: 1 }.run(settings, &server).await?.burst;
    drop(server);
    let after = direct_rate(settings, service.address).await?;
    let what = format!("HTTP calls, {CONCURRENCY} at a time");
    report.add(Row::new("http", &what, rate, "tasks/s").baseline(f64::midpoint(before, after), "a bare client"));
    Ok(())
}

/// Calls per second without a server.
async fn direct_rate(settings: &Settings, address: SocketAddr) -> Result<f64> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let window = Window::after_warm_up(settings.duration / 2);
    let caller = || {
        let client = client.clone();
        move || {
            let client = client.clone();
            async move {
                let failed = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
                let request = Request::post(format!("http://{address}/")).body(Full::default());
                let request = request.map_err(|error| failed(&error))?;
                let response = client.request(request).await.map_err(|error| failed(&error))?;
                response.into_body().collect().await.map_err(|error| failed(&error))?;
                Ok(1)
            }
        }
    };
    let callers = (0..CONCURRENCY).map(|_| caller()).collect();
    Ok(window.rate(closed_loop(window, u64::MAX, callers).await?.count))
}

/// A service in this process on its own runtime. It is stopped when this is dropped.
struct Service {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Service {
    fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("http-service").enable_all().build()?;
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A connection whose request breaks off is closed.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::from("done")))
}
