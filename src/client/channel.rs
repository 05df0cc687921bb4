//! The connection of a client, its token and its TLS certificates.

use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::Authority;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::model::limits::PayloadLimit;
use crate::model::{SecretUrl, TraceContext, limits};
use crate::proto::v1::artifact_service_client::ArtifactServiceClient;
use crate::proto::v1::batch_service_client::BatchServiceClient;
use crate::proto::v1::handler_service_client::HandlerServiceClient;
use crate::proto::v1::pool_service_client::PoolServiceClient;
use crate::proto::v1::schedule_service_client::ScheduleServiceClient;
use crate::proto::v1::system_service_client::SystemServiceClient;
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::worker_service_client::WorkerServiceClient;

use super::bounded_channel::BoundedChannel;
use super::error::ConnectError;

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7070";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection with calls in flight is closed if it brings nothing, not even the answer to a ping, for this time together.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Flow-control windows, large enough that a stream rarely waits for a window update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest response: a task with its payload and its result, or a page of events.
const RESPONSE_BYTES_MAX: usize = 2 * *PayloadLimit::RANGE.end() + limits::MESSAGE_BYTES_MAX;

/// Adds the token and the trace context of the environment to every call.
#[derive(Clone, Debug, Default)]
pub struct CallHeaders {
    bearer: Option<MetadataValue<Ascii>>,
    trace: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl CallHeaders {
    /// Reads the trace context from the variables `TRACEPARENT`, `TRACESTATE` and `BAGGAGE`, which a task or a CI
    /// system sets for its processes. Malformed values are ignored.
    fn new(bearer: Option<MetadataValue<Ascii>>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let (parent, state, baggage) = (variable("TRACEPARENT"), variable("TRACESTATE"), variable("BAGGAGE"));
        let context = TraceContext::parse(parent.as_deref(), state.as_deref(), baggage.as_deref()).unwrap_or_default();
        let headers = [
            ("traceparent", context.traceparent().unwrap_or_default()),
            ("tracestate", context.state.into()),
            ("baggage", context.baggage.into()),
        ];
        let header = |(name, text): (_, String)| Some((name, MetadataValue::try_from(text).ok()?));
        Self { bearer, trace: headers.into_iter().filter(|(_, text)| !text.is_empty()).filter_map(header).collect() }
    }
}

impl Interceptor for CallHeaders {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        if let Some(bearer) = &self.bearer {
            headers.insert("authorization", bearer.clone());
        }
        for (name, value) in &self.trace {
            headers.insert(*name, value.clone());
        }
        Ok(request)
    }
}

/// The connection under the generated clients in [`proto`](crate::proto).
pub type ClientChannel = InterceptedService<BoundedChannel, CallHeaders>;

/// A client of one server. Clones share its connection, which is opened by the first call, and again after it broke.
#[derive(Clone, Debug)]
pub struct Client {
    channel: ClientChannel,
    exposes_token: bool,
}

/// The address of a server, and how to connect to it.
#[derive(Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    address: String,
    token: Option<String>,
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Client {
    /// A client without credentials. The address is `host:port`, `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// [`ConnectError`] if the address is not valid. Whether a server is there shows the first call.
    pub fn new(address: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(address).build()
    }

    /// A client for `LINESHAFT_SERVER`, by default `127.0.0.1:7070`, with the credentials of `LINESHAFT_TOKEN`,
    /// `LINESHAFT_TOKEN_FILE`, `LINESHAFT_TLS_CA`, `LINESHAFT_TLS_CERT` and `LINESHAFT_TLS_KEY`, as those of the command line.
    ///
    /// # Errors
    /// [`ConnectError`] if a variable is not valid, or a file cannot be read.
    pub fn from_env() -> Result<Self, ConnectError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = |name: &str| {
            let path = variable(name);
            path.map(|path| {
                std::fs::read(&path).map_err(|error| ConnectError::File { what: name.to_owned(), path, error })
            })
            .transpose()
        };
        let address = variable("LINESHAFT_SERVER").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let mut builder = Self::builder(address);
        if let Some(token) = variable("LINESHAFT_TOKEN") {
            builder = builder.token(token);
        } else if let Some(token) = file("LINESHAFT_TOKEN_FILE")? {
            builder = builder.token(String::from_utf8_lossy(&token));
        }
        if let Some(ca) = file("LINESHAFT_TLS_CA")? {
            builder = builder.ca_certificate(ca);
        }
        match (file("LINESHAFT_TLS_CERT")?, file("LINESHAFT_TLS_KEY")?) {
            (Some(certificate), Some(key)) => builder = builder.identity(certificate, key),
            (None, None) => {}
            _ => return Err(ConnectError::HalfIdentity),
        }
        builder.build()
    }

    /// A client with credentials.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder { address: address.into(), ..ClientBuilder::default() }
    }

    /// Whether the token is sent without TLS to another machine.
    pub(crate) fn exposes_token(&self) -> bool {
        self.exposes_token
    }

    /// All calls about tasks.
    pub fn tasks(&self) -> TaskServiceClient<ClientChannel> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    /// All calls about artifacts.
    pub fn artifacts(&self) -> ArtifactServiceClient<ClientChannel> {
        ArtifactServiceClient::new(self.channel.clone())
    }

    /// All calls about batches.
    pub fn batches(&self) -> BatchServiceClient<ClientChannel> {
        BatchServiceClient::new(self.channel.clone())
    }

    /// All calls about schedules.
    pub fn schedules(&self) -> ScheduleServiceClient<ClientChannel> {
        ScheduleServiceClient::new(self.channel.clone())
    }

    /// All calls about pools.
    pub fn pools(&self) -> PoolServiceClient<ClientChannel> {
        PoolServiceClient::new(self.channel.clone())
    }

    /// All calls about handlers.
    pub fn handlers(&self) -> HandlerServiceClient<ClientChannel> {
        HandlerServiceClient::new(self.channel.clone())
    }

    /// All calls about the server.
    pub fn system(&self) -> SystemServiceClient<ClientChannel> {
        SystemServiceClient::new(self.channel.clone())
    }

    pub(crate) fn workers(&self) -> WorkerServiceClient<ClientChannel> {
        WorkerServiceClient::new(self.channel.clone()).max_decoding_message_size(4 * limits::MESSAGE_BYTES_MAX)
    }
}

impl ClientBuilder {
    /// Sends an API key or JWT with each call.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts this CA (PEM) instead of the CAs of the system, and connects with TLS.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Authenticates with a client certificate and its private key (PEM), and connects with TLS.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The client. It connects with its first call.
    ///
    /// # Errors
    /// [`ConnectError`] if the address, the token or a certificate is not valid.
    pub fn build(self) -> Result<Client, ConnectError> {
        let require_tls = self.ca.is_some() || self.identity.is_some();
        let scheme = if require_tls { "https" } else { "http" };
        let address = self.address.trim();
        let url = if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
        let mut endpoint =
            Endpoint::from_shared(url).map_err(|_| ConnectError::NotAUrl(SecretUrl::from(&*self.address)))?;
        check_url(endpoint.uri()).map_err(ConnectError::Url)?;
        let bearer = self.token.as_deref().map(bearer).transpose()?;
        let is_encrypted = endpoint.uri().scheme_str() == Some("https");
        if is_encrypted {
            endpoint = endpoint.tls_config(tls(self.ca, self.identity)).map_err(ConnectError::Tls)?;
        } else if require_tls {
            return Err(ConnectError::NotHttps(self.address));
        }
        let exposes_token =
            bearer.is_some() && !is_encrypted && !is_loopback(endpoint.uri().host().unwrap_or_default());
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tcp_nodelay(true);
        let headers = CallHeaders::new(bearer, |name| std::env::var(name).ok());
        Ok(Client { channel: InterceptedService::new(BoundedChannel(endpoint.connect_lazy()), headers), exposes_token })
    }
}

/// The value of the `authorization` header.
fn bearer(token: &str) -> Result<MetadataValue<Ascii>, ConnectError> {
    let token = token.trim();
    let header = MetadataValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut header = header.ok_or(ConnectError::Token)?;
    header.set_sensitive(true);
    Ok(header)
}

fn tls(ca: Option<Vec<u8>>, identity: Option<(Vec<u8>, Vec<u8>)>) -> ClientTlsConfig {
    let config = match ca {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match identity {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

/// Refuses what would be ignored silently, or read as another port.
fn check_url(uri: &Uri) -> Result<(), &'static str> {
    let authority = uri.authority().map_or("", Authority::as_str);
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("the scheme must be http or https");
    }
    if authority.contains('@') {
        return Err("a URL has no user or password here: pass --token-file, and write only scheme, host and port");
    }
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err("a path has no effect: write only scheme, host and port");
    }
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    if port.is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
        return Err("the port must be 0 to 65535");
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        for good in ["http://a", "https://a:1/", "http://[::1]", "http://[::1]:65535", "http://127.0.0.1:7070"] {
            assert_eq!(check_url(&good.parse().unwrap()), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("ftp://a", "scheme"),
            ("http://a:99999", "port"),
            ("http://[::1]:70000", "port"),
            ("http://me:secret@a:1", "password"),
            ("http://a:1/path", "path"),
            ("http://a?x=1", "path"),
        ] {
            let problem = check_url(&bad.parse().unwrap()).unwrap_err();
            assert!(problem.contains(expected), "{bad}: {problem}");
        }
    }

    #[test]
    fn the_password_of_an_invalid_address_is_not_shown() {
        let error = Client::builder("http://bob:hunter2@[::1").build().err().unwrap();
        assert_eq!(error.to_string(), "address \"http://(hidden)@[::1\" is not a URL");
    }

    #[test]
    fn calls_carry_the_trace_context_of_the_environment_if_it_is_valid() {
        let sent = |variables: &[(&str, &str)]| {
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
            let request = CallHeaders::new(None, variable).call(Request::new(())).unwrap();
            let headers = request.metadata().clone().into_headers();
            let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            [header("traceparent"), header("tracestate"), header("baggage")]
        };
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let all = [("TRACEPARENT", parent), ("TRACESTATE", "vendor=1"), ("BAGGAGE", "user=7")];
        assert_eq!(sent(&all), [parent, "vendor=1", "user=7"].map(|text| Some(text.to_owned())));
        assert_eq!(sent(&[("TRACEPARENT", "nonsense\n"), ("TRACESTATE", "vendor=1")]), [None, None, None]);
        assert_eq!(sent(&[("TRACEPARENT", ""), ("BAGGAGE", "user=7")]), [None, None, Some("user=7".to_owned())]);
        assert_eq!(sent(&[]), [None, None, None]);
    }
}
