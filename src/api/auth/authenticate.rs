//! The entry of the guard: finds the identity of a call, and asks the table.
//!
//! A connection remembers the last header and whose it was, so a call costs one comparison and not a
//! hash or a signature. Without authentication it costs one branch.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request};
use tonic::transport::server::TcpConnectInfo;

use crate::api::listener::connection_limit::network;
use crate::api::status::{self, refused};

use super::audit;
use super::authenticator::Authenticator;
use super::certificate::CertificateNames;
use super::identity::{Denied, Identity, Unauthenticated};
use super::permissions::{self, CallKind, Permission};
use super::quota::{StreamSlot, Usage};

/// Where calls come in. Cheap to clone.
#[derive(Clone, Default)]
pub struct AccessControl {
    access: Option<Arc<Authenticator>>,
    connection: Arc<Connection>,
}

/// What is known of one connection.
#[derive(Default)]
struct Connection {
    peer: Option<TcpConnectInfo>,
    certificate: Option<CertificateNames>,
    seen: Mutex<Option<CachedIdentity>>,
}

/// The last header of a connection, and whose it was.
struct CachedIdentity {
    header: Option<HeaderValue>,
    generation: u64,
    identity: Arc<Identity>,
}

impl AccessControl {
    /// An entry; `None`: nobody is asked.
    pub fn new(access: Option<Arc<Authenticator>>) -> Self {
        Self { access, connection: Arc::default() }
    }

    /// The same, for the calls of one connection.
    pub fn facing(&self, peer: TcpConnectInfo, certificate: Option<CertificateNames>) -> Self {
        if self.access.is_none() {
            return self.clone();
        }
        let connection = Connection { peer: Some(peer), certificate, seen: Mutex::default() };
        Self { access: self.access.clone(), connection: Arc::new(connection) }
    }

    /// Whether somebody is known who may do anything at all; asked before the rest of a request is read.
    ///
    /// # Errors
    /// UNAUTHENTICATED.
    pub fn know(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        match &self.access {
            None => Ok(()),
            Some(_) if matches!(permissions::need(path), Some((Permission::Public, _))) => Ok(()),
            Some(access) => self.connection.known(access, path, headers).map(|_| ()).map_err(|status| *status),
        }
    }

    /// Whether the caller may see the page. One that is not in the table may be asked for: what it shows comes
    /// from calls, and those are asked themselves.
    ///
    /// # Errors
    /// UNAUTHENTICATED, PERMISSION_DENIED.
    pub fn may_see(&self, path: &str, headers: &HeaderMap) -> Result<(), Box<Status>> {
        match (&self.access, permissions::need(path)) {
            (None, _) | (_, None | Some((Permission::Public, _))) => Ok(()),
            (Some(access), need) => {
                let identity = self.connection.known(access, path, headers)?;
                self.connection.judge(access, need, path, &identity).map(|_| ())
            }
        }
    }

    /// Lets a call in, with its identity; gives what it has to be bound with when it lasts.
    ///
    /// # Errors
    /// UNAUTHENTICATED, PERMISSION_DENIED, QUOTA_EXCEEDED.
    pub fn admit<B>(&self, request: &mut Request<B>) -> Result<Option<StreamLease>, Box<Status>> {
        let Some(access) = &self.access else { return Ok(None) };
        let need = permissions::need(request.uri().path());
        let known = match need {
            Some((Permission::Public, _)) => None,
            _ => Some(self.connection.known(access, request.uri().path(), request.headers())?),
        };
        // Nobody behind this needs it, so nobody can show it.
        request.headers_mut().remove(AUTHORIZATION);
        let Some(identity) = known else { return Ok(None) };
        let stay = self.connection.judge(access, need, request.uri().path(), &identity)?;
        request.extensions_mut().insert(identity);
        Ok(stay)
    }
}

impl Connection {
    fn known(&self, access: &Authenticator, path: &str, headers: &HeaderMap) -> Result<Arc<Identity>, Box<Status>> {
        self.identify(access, headers).map_err(|error| {
            let status = refused(error);
            audit::refusal("nobody", &self.address(), path, &status);
            Box::new(status)
        })
    }

    fn identify(&self, access: &Authenticator, headers: &HeaderMap) -> Result<Arc<Identity>, Unauthenticated> {
        let mut headers = headers.get_all(AUTHORIZATION).iter();
        let (header, None) = (headers.next(), headers.next()) else { return Err(Unauthenticated::Invalid) };
        let generation = access.generation();
        let same = |seen: &&CachedIdentity| seen.generation == generation && matches(seen.header.as_ref(), header);
        if let Some(seen) = self.seen.lock().as_ref().filter(same) {
            return if seen.identity.is_expired(access.now()) {
                Err(Unauthenticated::Expired)
            } else {
                Ok(seen.identity.clone())
            };
        }
        let identity = match (header, &self.certificate) {
            (Some(header), _) => access.by_token(bearer(header).ok_or(Unauthenticated::Invalid)?, self.network())?,
            (None, Some(certificate)) => access.by_certificate(certificate)?,
            (None, None) => return Err(Unauthenticated::Missing),
        };
        let header = header.cloned();
        *self.seen.lock() = Some(CachedIdentity { header, generation, identity: identity.clone() });
        Ok(identity)
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.peer.as_ref().and_then(|peer| peer.remote_addr)
    }

    /// Where it comes from, as far as that can be told apart.
    fn network(&self) -> IpAddr {
        self.remote().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| network(address.ip()))
    }

    fn address(&self) -> String {
        self.remote().map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    }

    fn judge(
        &self,
        access: &Authenticator,
        need: Option<(Permission, CallKind)>,
        path: &str,
        identity: &Arc<Identity>,
    ) -> Result<Option<StreamLease>, Box<Status>> {
        let refuse = |status: Status| {
            audit::refusal(&identity.name, &self.address(), path, &status);
            Box::new(status)
        };
        let (enough, role) = match need {
            Some((Permission::AnyNamespace(role), _)) => (identity.holds(role), Some(role)),
            Some((Permission::AllNamespaces(role), _)) => (identity.holds_everywhere(role), Some(role)),
            Some((Permission::Authenticated, _)) => (identity.holds_something(), None),
            Some((Permission::Public, _)) | None => (false, None),
        };
        if !enough {
            let denied = Denied { identity: identity.name.to_string(), role, namespace: None };
            return Err(refuse(status::of(&denied)));
        }
        if need.is_none_or(|(_, span)| span == CallKind::Unary) {
            return Ok(None);
        }
        let place = Usage::stream(&identity.usage).map_err(|error| refuse(refused(error)))?;
        let left = identity.expires_at.map(|at| at.since(access.now()));
        Ok(Some(StreamLease { identity: identity.clone(), left, place }))
    }
}

/// In constant time: behind a proxy many callers share a connection.
fn matches(seen: Option<&HeaderValue>, header: Option<&HeaderValue>) -> bool {
    match (seen, header) {
        (Some(seen), Some(header)) => seen.as_bytes().ct_eq(header.as_bytes()).into(),
        (seen, header) => seen.is_none() && header.is_none(),
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// A call that lasts: its identity, and its place among those of the identity.
pub struct StreamLease {
    identity: Arc<Identity>,
    /// Time that the identity had left when the call began.
    left: Option<Duration>,
    place: StreamSlot,
}

impl StreamLease {
    /// A body that ends with its identity.
    pub fn bound(self, inner: Body) -> Body {
        let Self { identity, left, place } = self;
        Body::new(LeasedBody { inner, identity, left, ends: None, over: false, _place: place })
    }
}

/// A body that ends with its identity.
struct LeasedBody {
    inner: Body,
    identity: Arc<Identity>,
    /// Time that the identity had left when the call began.
    left: Option<Duration>,
    /// Made when the body is first asked.
    ends: Option<BoxFuture<'static, ()>>,
    over: bool,
    _place: StreamSlot,
}

impl LeasedBody {
    fn ended(&mut self, context: &mut Context<'_>) -> bool {
        let (identity, left) = (&self.identity, self.left);
        let ends = self.ends.get_or_insert_with(|| {
            let revoked = identity.revoked.clone().cancelled_owned();
            async move {
                match left {
                    Some(left) => drop(tokio::time::timeout(left, revoked).await),
                    None => revoked.await,
                }
            }
            .boxed()
        });
        ends.as_mut().poll(context).is_ready()
    }
}

impl http_body::Body for LeasedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        // A stream that is never quiet has to end as well.
        let goes_on = match &polled {
            Poll::Pending => true,
            Poll::Ready(frame) => matches!(frame, Some(Ok(frame)) if frame.is_data()),
        };
        if !goes_on || !self.ended(context) {
            return polled;
        }
        self.over = true;
        let mut last = HeaderMap::new();
        refused(Unauthenticated::Expired).add_header(&mut last)?;
        Poll::Ready(Some(Ok(Frame::trailers(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::authenticator::AuthOptions;
    use super::*;
    use crate::model::api_key::GeneratedKey;
    use crate::model::key_file::{KeyEntry, KeyFile};
    use crate::model::{SystemClock, Timestamp};

    const GET: &str = "/lineshaft.v1.TaskService/GetTask";

    /// An entry that knows one viewer, whose key is given.
    fn entry() -> (AccessControl, String, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let key = GeneratedKey::random().unwrap();
        let entry = KeyEntry::new(&key, "me", ("viewer", vec!["*".to_owned()]), Timestamp::ZERO, None);
        std::fs::write(&path, KeyFile { keys: vec![entry] }.to_toml()).unwrap();
        let options = AuthOptions { tokens_file: Some(path), ..AuthOptions::default() };
        let (access, _files) = Authenticator::open(options, Arc::new(SystemClock)).unwrap();
        let peer = TcpConnectInfo { local_addr: None, remote_addr: None };
        (AccessControl::new(Some(access)).facing(peer, None), key.text, directory)
    }

    fn call(entry: &AccessControl, path: &str, headers: &[&str]) -> Result<Request<()>, Code> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().unwrap();
        for header in headers {
            request.headers_mut().append(AUTHORIZATION, header.parse().unwrap());
        }
        entry.admit(&mut request).map(|_| request).map_err(|status| status.code())
    }

    #[test]
    fn the_identity_goes_on_and_the_token_does_not() {
        let (entry, key, _directory) = entry();
        // The second call is known by its header alone.
        for scheme in ["Bearer", "bearer"] {
            let request = call(&entry, GET, &[&format!("{scheme} {key}")]).unwrap();
            assert_eq!(&*request.extensions().get::<Arc<Identity>>().unwrap().name, "key:me");
            assert!(!request.headers().contains_key(AUTHORIZATION));
        }
    }

    #[test]
    fn what_a_connection_remembers_is_for_that_header_only() {
        let (entry, key, _directory) = entry();
        let good = format!("Bearer {key}");
        assert!(call(&entry, GET, &[&good]).is_ok());
        for headers in [&[][..], &["Bearer x"], &[&format!("Basic {key}")], &[&key], &[&good, "Bearer x"]] {
            let refused = call(&entry, GET, headers).map(|_| ());
            assert_eq!(refused, Err(Code::Unauthenticated), "{headers:?}");
        }
        assert!(call(&entry, GET, &[&good]).is_ok());
        assert_eq!(call(&entry, "/nothing", &[&good]).map(|_| ()), Err(Code::PermissionDenied));
    }

    #[test]
    fn without_authentication_nobody_is_asked_and_nothing_is_taken_away() {
        let request = call(&AccessControl::default(), "/whatever", &["Bearer x"]).unwrap();
        assert!(request.headers().contains_key(AUTHORIZATION));
        assert!(AccessControl::default().know("/whatever", &HeaderMap::new()).is_ok());
    }
}
