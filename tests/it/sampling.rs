//! Sampling as a server of Jaeger says it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt, Ready, ready};
use lineshaft::proto::v1;
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::collector::Collector;
use crate::support::{Server, TIMEOUT, noop};

/// `jaeger.api_v2.SamplingStrategyParameters`
#[derive(Clone, PartialEq, prost::Message)]
struct Parameters {
    #[prost(string, tag = "1")]
    service_name: String,
}

/// `jaeger.api_v2.SamplingStrategyResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct Strategy {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    probabilistic: Option<Probability>,
    #[prost(message, optional, tag = "4")]
    operations: Option<Operations>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Probability {
    #[prost(double, tag = "1")]
    sampling_rate: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Operations {
    #[prost(double, tag = "1")]
    default_probability: f64,
    #[prost(message, repeated, tag = "3")]
    strategies: Vec<Operation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    probabilistic: Option<Probability>,
}

/// A sampling server of the test's own; it does not answer until it is told what.
struct Sampling {
    endpoint: String,
    says: Arc<Says>,
}

struct Says {
    answer: Mutex<Result<Strategy, Status>>,
    services: Mutex<Vec<String>>,
    /// Questions since the answer is what it is.
    asked: watch::Sender<usize>,
}

#[derive(Clone)]
struct Manager(Arc<Says>);

impl NamedService for Manager {
    const NAME: &'static str = "jaeger.api_v2.SamplingManager";
}

impl tower::Service<http::Request<Body>> for Manager {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answering = self.clone();
        async move {
            assert_eq!(request.uri().path(), "/jaeger.api_v2.SamplingManager/GetSamplingStrategy");
            Ok(Grpc::new(ProstCodec::<Strategy, Parameters>::default()).unary(answering, request).await)
        }
        .boxed()
    }
}

impl UnaryService<Parameters> for Manager {
    type Response = Strategy;
    type Future = Ready<Result<Response<Strategy>, Status>>;

    fn call(&mut self, request: Request<Parameters>) -> Self::Future {
        self.0.services.lock().push(request.into_inner().service_name);
        let answer = self.0.answer.lock();
        self.0.asked.send_modify(|asked| *asked += 1);
        ready(answer.clone().map(Response::new))
    }
}

impl Sampling {
    /// On a thread of its own: a test that waits for a server's end must not keep it from listening.
    async fn start() -> Self {
        let (tell, told_address) = tokio::sync::oneshot::channel();
        let says = Arc::new(Says {
            answer: Mutex::new(Err(Status::unavailable("not yet"))),
            services: Mutex::default(),
            asked: watch::Sender::new(0),
        });
        let manager = Manager(says.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serve = move || {
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let server = tonic::transport::Server::builder().add_service(manager);
                server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
            });
        };
        std::thread::Builder::new().name("sampling".to_owned()).spawn(serve).unwrap();
        Self { endpoint: format!("http://{}", told_address.await.unwrap()), says }
    }

    /// Says this from now on; returns when the answer has been taken in: nobody asks again before.
    async fn say(&self, strategy: Strategy) {
        {
            let mut answer = self.says.answer.lock();
            *answer = Ok(strategy);
            self.says.asked.send_replace(0);
        }
        self.asked_twice().await;
    }

    async fn asked_twice(&self) {
        let mut asked = self.says.asked.subscribe();
        tokio::time::timeout(TIMEOUT, asked.wait_for(|asked| *asked >= 2)).await.expect("it asks").unwrap();
    }
}

fn share(sampling_rate: f64) -> Strategy {
    // Type 0 means by probability.
    Strategy { probabilistic: Some(Probability { sampling_rate }), ..Strategy::default() }
}

fn variables<'a>(collector: &'a Collector, argument: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("OTEL_SERVICE_NAME", "tasks"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER_ARG", argument),
    ]
}

/// Submits a task and waits for its end.
async fn ran(server: &Server) -> String {
    let id = server.submit(noop()).await;
    server.ended(&id).await;
    id
}

#[tokio::test]
async fn a_sampling_server_decides_what_is_recorded_from_its_first_answer_on() {
    let (collector, sampling) = (Collector::start().await, Sampling::start().await);
    let argument = format!("endpoint={},pollingIntervalMs=20,initialSamplingRate=1", sampling.endpoint);
    let mut variables = variables(&collector, &argument);
    variables.push(("OTEL_TRACES_SAMPLER", "jaeger_remote"));
    let mut server = Server::start_with("", &variables);
    sampling.asked_twice().await;
    let before = ran(&server).await;
    sampling.say(share(0.0)).await;
    let none = ran(&server).await;
    // A server that speaks of operations fills in the rest for others.
    let process = Operation { name: "process default".to_owned(), probabilistic: share(1.0).probabilistic };
    let operations = Some(Operations { default_probability: 0.0, strategies: vec![process] });
    sampling.say(Strategy { operations, ..share(1.0) }).await;
    let by_name = ran(&server).await;
    sampling.say(share(1.0)).await;
    let all = ran(&server).await;
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());

    let recorded = |task: &str| {
        ["send default", "process default"].map(|name| {
            let spans = collector.spans(name, task);
            spans.len()
        })
    };
    assert_eq!(recorded(&before), [1, 1], "{}", server.log());
    assert_eq!(recorded(&none), [0, 0]);
    assert_eq!(recorded(&by_name), [0, 1]);
    assert_eq!(recorded(&all), [1, 1]);
    assert!(sampling.says.services.lock().iter().all(|service| service == "tasks"));
    let log = server.log();
    // On a busy machine it may have been too slow once more.
    let first = |said: &str| log.find(said).unwrap_or_else(|| panic!("never {said}: {log}"));
    assert!(first("the sampling server does not answer") < first("the sampling server answers"), "{log}");
}

#[tokio::test]
async fn a_sampling_server_that_never_answers_is_waited_for_by_nobody() {
    let collector = Collector::start().await;
    // It takes calls, and that is all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let argument = format!("endpoint=http://{},initialSamplingRate=0", silent.local_addr().unwrap());
    let mut variables = variables(&collector, &argument);
    variables.push(("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"));
    let mut server = Server::start_with("", &variables);
    let unheard = ran(&server).await;
    let mut request = Request::new(noop());
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", caller.parse().unwrap());
    let heard: v1::SubmitTaskResponse = server.tasks().submit_task(request).await.unwrap().into_inner();
    server.ended(&heard.task_id).await;
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(!server.log().contains("too slow"), "{}", server.log());
    // Whoever has a caller follows the caller.
    collector.span("process default", &heard.task_id).await;
    assert_eq!(collector.spans("process default", &unheard).len(), 0);
}
