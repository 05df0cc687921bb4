//! gRPC clients of one server.

use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::Authority;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::model::{TraceContext, limits};
use crate::proto::v1::handler_service_client::HandlerServiceClient;
use crate::proto::v1::pool_service_client::PoolServiceClient;
use crate::proto::v1::system_service_client::SystemServiceClient;
use crate::proto::v1::task_service_client::TaskServiceClient;

use super::credentials::Credentials;
use super::error::{CliError, with_sources};
use super::output;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for one answer, or for the beginning of a stream; longer than a server waits for the end of a task in one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// A connection with calls in flight is closed if it brings nothing, not even the answer to a ping, for this time together.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Adds the token and the trace context to every call.
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

type ClientChannel = InterceptedService<Channel, CallHeaders>;

#[derive(Clone)]
pub struct Client {
    channel: ClientChannel,
}

impl Client {
    /// The connection is opened by the first call.
    pub fn new(server: &str, credentials: &Credentials) -> Result<Self, CliError> {
        let require_tls = credentials.require_tls();
        let scheme = if require_tls { "https" } else { "http" };
        let url = if server.contains("://") { server.to_owned() } else { format!("{scheme}://{server}") };
        let invalid = || CliError::Usage(format!("--server {server:?} is not a URL"));
        let mut endpoint = Endpoint::from_shared(url).map_err(|_| invalid())?;
        check_url(endpoint.uri())
            .map_err(|problem| CliError::Usage(format!("--server: {problem}, such as http://127.0.0.1:7070")))?;
        let bearer = credentials.bearer()?;
        if endpoint.uri().scheme_str() == Some("https") {
            let refused = |error| CliError::Usage(format!("TLS: {}", with_sources(&error)));
            endpoint = endpoint.tls_config(credentials.tls()?).map_err(refused)?;
        } else if require_tls {
            return Err(CliError::Usage(format!(
                "--tls-ca, --tls-cert and --tls-key require an https URL, --server is {server}"
            )));
        } else if bearer.is_some() && !is_loopback(endpoint.uri().host().unwrap_or_default()) {
            output::status(format_args!("warning: the token is sent unencrypted: {server} is not an https URL"));
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .tcp_nodelay(true);
        let headers = CallHeaders::new(bearer, |name| std::env::var(name).ok());
        Ok(Self { channel: InterceptedService::new(endpoint.connect_lazy(), headers) })
    }

    pub fn tasks(&self) -> TaskServiceClient<ClientChannel> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(4 * limits::MESSAGE_BYTES_MAX)
    }

    pub fn pools(&self) -> PoolServiceClient<ClientChannel> {
        PoolServiceClient::new(self.channel.clone())
    }

    pub fn handlers(&self) -> HandlerServiceClient<ClientChannel> {
        HandlerServiceClient::new(self.channel.clone())
    }

    pub fn system(&self) -> SystemServiceClient<ClientChannel> {
        SystemServiceClient::new(self.channel.clone())
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
