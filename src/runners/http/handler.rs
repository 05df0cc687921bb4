//! An HTTP handler with everything resolved that is the same for every attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use tokio::sync::Semaphore;

use super::connector::{HttpClient, client};
use super::options::{HttpOptions, OptionsError, Status};
use super::text::{Files, Text, TextError, Values};
use crate::model::{ArgPattern, Failure, FailureReason, TraceContext, UrlTemplate};
use crate::runners::{Outcome, Run};
use crate::telemetry::propagation;

const TASK_HEADER: HeaderName = HeaderName::from_static("lineshaft-task-id");
/// 1 for the first attempt.
const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("lineshaft-attempt");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("lineshaft/", env!("CARGO_PKG_VERSION")));
/// Otherwise a service may compress its response.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
/// Calls of the cancel URL that are in flight at a time.
const CANCELS_MAX: usize = 64;

pub(super) struct HttpHandler {
    pub(super) call: Endpoint,
    pub(super) cancel: Option<Endpoint>,
    pub(super) cancels: Semaphore,
    pub(super) success: Vec<Status>,
    pub(super) retry: Vec<Status>,
    pub(super) grace: Duration,
    headers: Vec<(HeaderName, Text)>,
    arg_pattern: Option<ArgPattern>,
    /// The number of arguments that a task must have.
    args: usize,
}

/// A method and a URL.
pub(super) struct Endpoint {
    pub(super) client: HttpClient,
    method: Method,
    origin: Box<str>,
    pub(super) host: Box<str>,
    target: Text,
}

/// What differs between attempts, but not between the requests of one attempt.
pub(super) struct Attempt {
    pub(super) values: Values,
    pub(super) trace: Option<Arc<TraceContext>>,
}

impl HttpHandler {
    /// Blocks while it reads files.
    pub(super) fn new(options: HttpOptions) -> Result<Self, OptionsError> {
        let mut files = Files::default();
        let ca = options.ca.as_deref();
        let connections = |url: &UrlTemplate| client(url, ca, &options.allowed_networks);
        let call = Endpoint::new(options.method, &options.url, connections(&options.url)?, &mut files)?;
        let cancel = match options.cancel {
            Some((method, url)) => {
                let is_same = url.origin() == options.url.origin();
                let connections = if is_same { call.client.clone() } else { connections(&url)? };
                Some(Endpoint::new(method, &url, connections, &mut files)?)
            }
            None => None,
        };
        let mut header = |(name, template)| Ok((name, Text::new(&template, &mut files)?));
        let headers = options.headers.into_iter().map(&mut header).collect::<Result<Vec<_>, _>>()?;
        let texts = headers.iter().map(|(_, text)| text);
        let texts = texts.chain(cancel.as_ref().map(|cancel| &cancel.target)).chain([&call.target]);
        let args = texts.map(|text| text.args).max().unwrap_or(0);
        Ok(Self {
            call,
            cancel,
            cancels: Semaphore::new(CANCELS_MAX),
            success: options.success,
            retry: options.retry,
            grace: options.grace,
            headers,
            arg_pattern: options.arg_pattern,
            args,
        })
    }

    /// Checked at submission, too, but the registration may have changed since.
    pub(super) fn check_args(&self, run: &Run) -> Result<(), Failure> {
        let refused = |message| Err(Failure::new(FailureReason::InvalidPayload, message));
        if run.args.len() != self.args {
            return refused(format!("`args` has {} values, must have {}", run.args.len(), self.args));
        }
        match self.arg_pattern.as_ref().and_then(|pattern| pattern.mismatch(&run.args)) {
            Some(index) => refused(format!("`args[{index}]` does not match its pattern")),
            None => Ok(()),
        }
    }

    /// # Errors
    /// The outcome of an attempt that sends nothing.
    pub(super) async fn request(
        &self,
        endpoint: &Endpoint,
        attempt: &Attempt,
        payload: Option<(Bytes, &str)>,
    ) -> Result<Request<Full<Bytes>>, Outcome> {
        let target = endpoint.target.target(&attempt.values).await.map_err(TextError::into_outcome)?;
        let uri = format!("{}{target}", endpoint.origin);
        let (body, content_type) = payload.unwrap_or_default();
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = endpoint.method.clone();
        *request.uri_mut() = uri.parse().map_err(|error| invalid(format!("the URL is not valid: {error}")))?;
        let headers = request.headers_mut();
        for (name, text) in &self.headers {
            let value = text.header(&attempt.values).await.map_err(TextError::into_outcome)?;
            let value = HeaderValue::try_from(value);
            let mut value = value.map_err(|_| invalid(format!("the value of the header `{name}` is not valid")))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        attempt.add_headers(headers)?;
        if body.is_empty() && matches!(endpoint.method, Method::POST | Method::PUT | Method::PATCH) {
            // Some services refuse these methods without a length, and the client leaves out one of zero.
            headers.insert(CONTENT_LENGTH, 0.into());
        }
        if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            let value = HeaderValue::from_str(content_type);
            headers.insert(CONTENT_TYPE, value.map_err(|_| invalid("the content type is not valid".to_owned()))?);
        }
        Ok(request)
    }
}

impl Attempt {
    pub(super) fn of(run: &Run) -> Self {
        let values = Values { task: run.task.to_string(), attempt: run.attempt, args: run.args.clone() };
        Self { values, trace: run.trace.clone() }
    }

    fn add_headers(&self, headers: &mut HeaderMap) -> Result<(), Outcome> {
        let task = HeaderValue::from_str(&self.values.task);
        headers.insert(TASK_HEADER, task.map_err(|_| invalid("the task id is not valid in a header".to_owned()))?);
        headers.insert(ATTEMPT_HEADER, self.values.attempt.into());
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        headers.entry(USER_AGENT).or_insert(AGENT);
        let context = self.trace.iter().flat_map(|trace| propagation::installed().variables(trace));
        for (name, value) in context {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        Ok(())
    }
}

impl Endpoint {
    fn new(method: Method, url: &UrlTemplate, client: HttpClient, files: &mut Files) -> Result<Self, OptionsError> {
        let target = Text::new(&url.target, files)?;
        Ok(Self { client, method, origin: url.origin().into(), host: url.host().into(), target })
    }
}

impl TextError {
    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Invalid(message) => invalid(message),
            Self::Unreadable(message) => Outcome::Unavailable(message.into()),
        }
    }
}

fn invalid(message: String) -> Outcome {
    Outcome::Failed(Failure::new(FailureReason::InvalidPayload, message))
}
