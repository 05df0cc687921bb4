//! The connection, and what is said when something goes wrong.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::model::{TraceContext, limits};
use crate::proto::v1::handler_service_client::HandlerServiceClient;
use crate::proto::v1::pool_service_client::PoolServiceClient;
use crate::proto::v1::system_service_client::SystemServiceClient;
use crate::proto::v1::task_service_client::TaskServiceClient;

use super::say;

/// Exit codes; 2 is a command line that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It went well.
    Ok = 0,
    /// The task FAILED.
    TaskFailed = 1,
    /// The command line or a file that it names cannot be used.
    Usage = 2,
    /// The server refused.
    Refused = 3,
    /// The server cannot be reached, or went away.
    Unreachable = 4,
    /// The task was CANCELLED.
    TaskCancelled = 5,
    /// The task has not ended yet.
    NotFinished = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong.
#[derive(Debug)]
pub enum Problem {
    /// With the command line or a file that it names.
    Usage(String),
    /// With the call.
    Status(Box<Status>),
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Problem {
    /// The exit code that tells it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Status(status) if is_unreachable(status) => Exit::Unreachable,
            Self::Status(_) => Exit::Refused,
        }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        for line in self.lines() {
            say::talk(line);
        }
    }

    fn lines(&self) -> Vec<String> {
        let status = match self {
            Self::Usage(text) => return vec![format!("error: {text}")],
            Self::Status(status) => status,
        };
        if is_unreachable(status) {
            let why = std::error::Error::source(&**status).map(with_sources);
            let why = why.unwrap_or_else(|| status.message().to_owned());
            return vec![
                format!("error: the server cannot be reached: {why}"),
                "hint: start one with `lineshaft serve`, or name another with --server".to_owned(),
            ];
        }
        let details = status.get_error_details();
        let mut lines = vec![format!("error: {}", status.message())];
        match details.error_info() {
            Some(info) => lines.push(format!("reason: {}", info.reason)),
            None => lines.push(format!("code: {}", status.code())),
        }
        if status.code() == Code::Unauthenticated {
            lines.push("hint: say who you are with --token-file, LINESHAFT_TOKEN or a certificate".to_owned());
        }
        for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
            lines.push(format!("field: {}: {}", violation.field, violation.description));
        }
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            lines.push(format!("hint: try again in {}", humantime::format_duration(delay)));
        }
        lines
    }
}

fn is_unreachable(status: &Status) -> bool {
    status.get_error_details().error_info().is_none()
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// Who the caller is, and whom it believes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = super::CONNECTION)]
pub struct Credentials {
    /// Token that says who you are; other users of the machine can read it here, use --token-file.
    #[arg(long, global = true, env = "LINESHAFT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Secret>,
    /// File with that token.
    #[arg(long, global = true, env = "LINESHAFT_TOKEN_FILE", value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// File with the CA of the server's certificate, PEM; default: the system's CAs.
    #[arg(long, global = true, env = "LINESHAFT_TLS_CA", value_name = "PATH")]
    tls_ca: Option<PathBuf>,
    /// File with your certificate, PEM.
    #[arg(long, global = true, env = "LINESHAFT_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with its private key, PEM.
    #[arg(long, global = true, env = "LINESHAFT_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// A text that is never shown.
#[derive(Clone)]
struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Credentials {
    /// The `authorization` header.
    fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, Problem> {
        let text = match (&self.token, &self.token_file) {
            (Some(Secret(text)), _) => text.clone(),
            (None, Some(path)) => String::from_utf8_lossy(&read("--token-file", path)?).into_owned(),
            (None, None) => return Ok(None),
        };
        let text = text.trim();
        let header = MetadataValue::try_from(format!("Bearer {text}")).ok().filter(|_| !text.is_empty());
        let mut header = header.ok_or_else(|| Problem::Usage("the token is empty or no single line".to_owned()))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    fn tls(&self) -> Result<ClientTlsConfig, Problem> {
        let mut config = ClientTlsConfig::new();
        config = match &self.tls_ca {
            Some(path) => config.ca_certificate(Certificate::from_pem(read("--tls-ca", path)?)),
            None => config.with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let identity = Identity::from_pem(read("--tls-cert", certificate)?, read("--tls-key", key)?);
            config = config.identity(identity);
        }
        Ok(config)
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| Problem::Usage(format!("{flag} {}: {error}", path.display())))
}

/// Adds to every call who calls, and from where in a trace.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    bearer: Option<MetadataValue<Ascii>>,
    place: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl Caller {
    /// `said` knows the variables `TRACEPARENT`, `TRACESTATE` and `BAGGAGE`, in which a script or a task is
    /// told its place. One that cannot be understood is as if it were not there.
    fn new(bearer: Option<MetadataValue<Ascii>>, said: impl Fn(&str) -> Option<String>) -> Self {
        let (parent, state, baggage) = (said("TRACEPARENT"), said("TRACESTATE"), said("BAGGAGE"));
        let place = TraceContext::parse(parent.as_deref(), state.as_deref(), baggage.as_deref()).unwrap_or_default();
        let headers = [
            ("traceparent", place.traceparent().unwrap_or_default()),
            ("tracestate", place.state.into()),
            ("baggage", place.baggage.into()),
        ];
        let header = |(name, text): (_, String)| Some((name, MetadataValue::try_from(text).ok()?));
        Self { bearer, place: headers.into_iter().filter(|(_, text)| !text.is_empty()).filter_map(header).collect() }
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        if let Some(bearer) = &self.bearer {
            headers.insert("authorization", bearer.clone());
        }
        for (name, value) in &self.place {
            headers.insert(*name, value.clone());
        }
        Ok(request)
    }
}

/// A connection that says who calls.
pub type Wire = InterceptedService<Channel, Caller>;

/// The services of one server.
#[derive(Clone)]
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Connects when first used.
    pub fn connect(server: &str, credentials: &Credentials) -> Result<Self, Problem> {
        let secure = credentials.tls_ca.is_some() || credentials.tls_cert.is_some();
        let scheme = if secure { "https" } else { "http" };
        let url = if server.contains("://") { server.to_owned() } else { format!("{scheme}://{server}") };
        let bad = || Problem::Usage(format!("--server {server:?} is no URL"));
        let mut endpoint = Endpoint::from_shared(url).map_err(|_| bad())?;
        let bearer = credentials.bearer()?;
        if endpoint.uri().scheme_str() == Some("https") {
            let refused = |error| Problem::Usage(format!("TLS: {}", with_sources(&error)));
            endpoint = endpoint.tls_config(credentials.tls()?).map_err(refused)?;
        } else if secure {
            return Err(Problem::Usage(format!(
                "--tls-ca, --tls-cert and --tls-key need an https address; {server} is none"
            )));
        } else if bearer.is_some() && !is_near(endpoint.uri().host().unwrap_or_default()) {
            say::talk(format_args!("warning: the token travels in the clear: {server} is not https"));
        }
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        let caller = Caller::new(bearer, |name| std::env::var(name).ok());
        Ok(Self { wire: InterceptedService::new(endpoint.connect_lazy(), caller) })
    }

    /// Tasks.
    pub fn tasks(&self) -> TaskServiceClient<Wire> {
        TaskServiceClient::new(self.wire.clone()).max_decoding_message_size(4 * limits::MESSAGE_BYTES_MAX)
    }

    /// Pools.
    pub fn pools(&self) -> PoolServiceClient<Wire> {
        PoolServiceClient::new(self.wire.clone())
    }

    /// Handlers.
    pub fn handlers(&self) -> HandlerServiceClient<Wire> {
        HandlerServiceClient::new(self.wire.clone())
    }

    /// The server as a whole.
    pub fn system(&self) -> SystemServiceClient<Wire> {
        SystemServiceClient::new(self.wire.clone())
    }
}

/// Whether only this machine sees what is sent there.
fn is_near(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The error and what caused it: that a certificate was not believed stands deep down.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn the_callers_place_in_a_trace_goes_with_every_call_and_nonsense_does_not() {
        let sent = |variables: &[(&str, &str)]| {
            let said = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
            let request = Caller::new(None, said).call(Request::new(())).unwrap();
            let headers = request.metadata().clone().into_headers();
            let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            [of("traceparent"), of("tracestate"), of("baggage")]
        };
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let all = [("TRACEPARENT", parent), ("TRACESTATE", "vendor=1"), ("BAGGAGE", "user=7")];
        assert_eq!(sent(&all), [parent, "vendor=1", "user=7"].map(|text| Some(text.to_owned())));
        assert_eq!(sent(&[("TRACEPARENT", "nonsense\n"), ("TRACESTATE", "vendor=1")]), [None, None, None]);
        assert_eq!(sent(&[("TRACEPARENT", ""), ("BAGGAGE", "user=7")]), [None, None, Some("user=7".to_owned())]);
        assert_eq!(sent(&[]), [None, None, None]);
    }

    #[test]
    fn a_refusal_tells_reason_field_and_hint() {
        let mut details = ErrorDetails::with_error_info("QUEUE_FULL", "lineshaft.dev", []);
        details.add_bad_request_violation("retry.factor", "is 99, it must be from 1 to 10");
        details.set_retry_info(Some(Duration::from_secs(1)));
        let problem = Problem::from(Status::with_error_details(Code::ResourceExhausted, "full", details));
        let expected = [
            "error: full",
            "reason: QUEUE_FULL",
            "field: retry.factor: is 99, it must be from 1 to 10",
            "hint: try again in 1s",
        ];
        assert_eq!(problem.lines(), expected);
        assert_eq!(problem.exit(), Exit::Refused);
    }

    #[test]
    fn a_server_that_is_not_there_is_told_apart_from_one_that_refuses() {
        let problem = Problem::from(Status::unavailable("connection refused"));
        assert_eq!(problem.exit(), Exit::Unreachable);
        let draining = ErrorDetails::with_error_info("DRAINING", "lineshaft.dev", []);
        let problem = Problem::from(Status::with_error_details(Code::Unavailable, "stopping", draining));
        assert_eq!(problem.exit(), Exit::Refused);
    }
}
