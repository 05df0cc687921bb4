//! The samplers `jaeger_remote`: a server says what is recorded, and is asked again and again.
//!
//! It is asked over gRPC, as the specification says; the library's own sampler knows HTTP only. Spans see the
//! strategy of the moment without waiting. A server that does not answer changes nothing: what it said last
//! holds, and before it has said anything the initial share.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};
use tokio::time::{MissedTickBehavior, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::super::settings::is_endpoint;
use super::super::transport::with_causes;
use super::super::without_secrets;
use super::strategy::{Answer, Question, Strategy};

/// The port on which a collector of Jaeger or OpenTelemetry serves strategies, on this machine.
const ENDPOINT: &str = "http://localhost:14250";
/// As in the other SDKs, and in the declarative configuration.
const INTERVAL: Duration = Duration::from_mins(1);
/// Longer ones are as good as this one; the clock would not bear all of them.
const INTERVAL_MAX: Duration = Duration::from_hours(24 * 365);
/// As in the SDKs for Go and Java, and in Jaeger's own clients.
const INITIAL_SHARE: f64 = 0.001;
/// Longest that one answer may take.
const LIMIT: Duration = Duration::from_secs(10);
const METHOD: &str = "/jaeger.api_v2.SamplingManager/GetSamplingStrategy";

/// Who says what is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// `http://host:port`, or `https://…`.
    pub endpoint: String,
    /// Time from one question to the next; not zero.
    pub interval: Duration,
    /// Share of the traces that are recorded until the first answer, 0 to 1.
    pub initial_share: f64,
}

impl Default for Remote {
    fn default() -> Self {
        Self { endpoint: ENDPOINT.to_owned(), interval: INTERVAL, initial_share: INITIAL_SHARE }
    }
}

impl Remote {
    /// Reads `endpoint=http://localhost:14250,pollingIntervalMs=5000,initialSamplingRate=0.25`, of which
    /// each part may be left out; `None` when it is malformed.
    pub fn parse(argument: &str) -> Option<Self> {
        let mut remote = Self::default();
        for part in argument.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            match name.trim() {
                "endpoint" if is_endpoint(value.trim()) => value.trim().clone_into(&mut remote.endpoint),
                "pollingIntervalMs" => {
                    let millis = value.trim().parse().ok().filter(|millis| *millis > 0)?;
                    remote.interval = Duration::from_millis(millis);
                }
                "initialSamplingRate" => {
                    remote.initial_share = value.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share))?;
                }
                _ => return None,
            }
        }
        Some(remote)
    }

    /// A sampler that follows the server, and what has to be done for it, for ever.
    pub fn follow(&self, service: &str) -> (RemoteSampler, impl Future<Output = ()> + Send + 'static) {
        let strategy = Arc::new(ArcSwap::from_pointee(Strategy::Share(self.initial_share)));
        let poller = Poller {
            remote: self.clone(),
            question: Question { service: service.to_owned() },
            strategy: strategy.clone(),
            answered: None,
        };
        (RemoteSampler(strategy), poller.run())
    }
}

/// Decides as the server has said last.
#[derive(Clone, Debug)]
pub struct RemoteSampler(Arc<ArcSwap<Strategy>>);

impl ShouldSample for RemoteSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let chosen = self.0.load().chooses(trace_id, name);
        let decision = if chosen { Sampler::AlwaysOn } else { Sampler::AlwaysOff };
        decision.should_sample(parent_context, trace_id, name, span_kind, attributes, links)
    }
}

/// Asks the server.
struct Poller {
    remote: Remote,
    question: Question,
    strategy: Arc<ArcSwap<Strategy>>,
    /// Whether it did the last time.
    answered: Option<bool>,
}

/// Why there is no strategy.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{}", with_causes(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{:?}: {}", .0.code(), reason(.0))]
    Refused(#[from] Status),
    #[error("the answer has no strategy")]
    Empty,
    #[error("no answer within {LIMIT:?}")]
    Late,
}

/// A connection that cannot be made is said deep down.
fn reason(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), with_causes)
}

impl Poller {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.remote.interval.min(INTERVAL_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut client = None;
        loop {
            ticks.tick().await;
            let asked = timeout(LIMIT, self.ask(&mut client)).await.unwrap_or(Err(NoAnswer::Late));
            self.note(asked);
        }
    }

    /// Asks once, and follows the answer.
    async fn ask(&self, client: &mut Option<Grpc<Channel>>) -> Result<(), NoAnswer> {
        let client = match client {
            Some(client) => client,
            None => client.insert(Grpc::new(self.channel()?)),
        };
        client.ready().await?;
        let codec = ProstCodec::<Question, Answer>::default();
        let path = PathAndQuery::from_static(METHOD);
        let answer = client.unary(Request::new(self.question.clone()), path, codec).await?.into_inner();
        let present = self.strategy.load();
        self.strategy.store(Arc::new(present.next(&answer).ok_or(NoAnswer::Empty)?));
        Ok(())
    }

    fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(self.remote.endpoint.clone())?;
        let endpoint = endpoint.connect_timeout(LIMIT);
        let secure = endpoint.uri().scheme_str() == Some("https");
        let endpoint = if secure { endpoint.tls_config(ClientTlsConfig::new().with_native_roots())? } else { endpoint };
        Ok(endpoint.connect_lazy())
    }

    /// Says when it stops to answer, and when it answers again; not each time.
    fn note(&mut self, asked: Result<(), NoAnswer>) {
        let before = self.answered.replace(asked.is_ok());
        if before == self.answered {
            return;
        }
        let (endpoint, strategy) = (without_secrets(&self.remote.endpoint), self.strategy.load());
        match asked {
            Ok(()) => {
                tracing::info!(endpoint, %strategy, "the sampling server answers: traces are recorded as it says");
            }
            Err(error) => {
                tracing::warn!(endpoint, %strategy, %error, "the sampling server does not answer: what held before holds");
            }
        }
    }
}
