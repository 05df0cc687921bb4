//! Authenticates the caller of each call and checks the permission table.
//!
//! The connection caches its last `authorization` header with the identity that it proved, so that a
//! repeated header costs one comparison instead of a hash or a signature check.

use std::sync::Arc;

use tonic::Status;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue};

use crate::api::status::{self, into_status};

use super::audit;
use super::authenticator::Authenticator;
use super::connection_info::ConnectionInfo;
use super::identity::Identity;
use super::permissions::{self, CallKind, Permission};
use super::refusal::{PermissionDenied, RoleScope, Unauthenticated};
use super::stream_lease::StreamLease;

/// Cheap to clone. Without an authenticator, authentication is off and every call is allowed.
#[derive(Clone, Default)]
pub struct AccessControl {
    authenticator: Option<Arc<Authenticator>>,
}

impl AccessControl {
    pub fn new(authenticator: Option<Arc<Authenticator>>) -> Self {
        Self { authenticator }
    }

    pub fn is_on(&self) -> bool {
        self.authenticator.is_some()
    }

    /// Identifies the caller. `None` if authentication is off, or if the call is public.
    ///
    /// # Errors
    /// UNAUTHENTICATED.
    pub fn authenticate(
        &self,
        path: &str,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<Arc<Identity>>, Box<Status>> {
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        if permissions::is_public(path) {
            return Ok(None);
        }
        identify(authenticator, headers, connection).map(Some).map_err(|error| {
            let status = into_status(error);
            audit::unauthenticated(&connection.address(), path, &status, error.reason());
            Box::new(status)
        })
    }

    /// Checks the caller's permission. Returns a lease if the call is a stream.
    ///
    /// # Errors
    /// PERMISSION_DENIED; QUOTA_EXCEEDED if the caller has too many open streams.
    pub fn authorize(
        &self,
        path: &str,
        identity: &Arc<Identity>,
        connection: &ConnectionInfo,
    ) -> Result<Option<StreamLease>, Box<Status>> {
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let refuse = |status: Status| {
            audit::denied(identity, &connection.address(), path, &status);
            Box::new(status)
        };
        let required = permissions::required(path);
        if !required.is_some_and(|(permission, _)| permission.is_granted_to(identity)) {
            let (role, scope) = match required {
                Some((Permission::AllNamespaces(role), _)) => (Some(role), RoleScope::AllNamespaces),
                Some((Permission::AnyNamespace(role), _)) => (Some(role), RoleScope::AnyNamespace),
                Some((Permission::Public | Permission::Authenticated, _)) | None => (None, RoleScope::AnyNamespace),
            };
            let denied = PermissionDenied { identity: identity.name.to_string(), role, scope, priority: None };
            return Err(refuse(status::to_status(&denied)));
        }
        match required {
            Some((_, CallKind::Streaming)) => {
                let lease = StreamLease::acquire(identity, authenticator.now());
                lease.map(Some).map_err(|error| refuse(into_status(error)))
            }
            _ => Ok(None),
        }
    }

    /// Checks whether the caller may read a page. A page that is not in the table is allowed: its content
    /// comes from calls, and each of these is checked.
    ///
    /// # Errors
    /// UNAUTHENTICATED, PERMISSION_DENIED.
    pub fn authorize_page(
        &self,
        path: &str,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<(), Box<Status>> {
        if permissions::required(path).is_none() {
            return Ok(());
        }
        match self.authenticate(path, headers, connection)? {
            Some(identity) => self.authorize(path, &identity, connection).map(|_| ()),
            None => Ok(()),
        }
    }
}

fn identify(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    connection: &ConnectionInfo,
) -> Result<Arc<Identity>, Unauthenticated> {
    let mut headers = headers.get_all(AUTHORIZATION).iter();
    let (header, None) = (headers.next(), headers.next()) else {
        return Err(Unauthenticated::Invalid("more than one header `authorization`"));
    };
    let generation = authenticator.generation();
    if let Some(identity) = connection.cached(header, generation) {
        return if identity.is_expired(authenticator.now()) { Err(Unauthenticated::Expired) } else { Ok(identity) };
    }
    let identity = match (header, &connection.certificate) {
        (Some(header), _) => {
            let token = bearer_token(header)
                .ok_or(Unauthenticated::Invalid("the header `authorization` is not `Bearer TOKEN`"))?;
            authenticator.by_token(token, connection.network())?
        }
        (None, Some(certificate)) => authenticator.by_certificate(certificate, &connection.revoked)?,
        (None, None) => return Err(Unauthenticated::Missing),
    };
    connection.cache(header.cloned(), generation, identity.clone());
    Ok(identity)
}

/// The token of `Bearer TOKEN`.
fn bearer_token(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::test_support::access;
    use super::*;

    const GET: &str = "/lineshaft.v1.TaskService/GetTask";

    fn call(
        access: &AccessControl,
        connection: &ConnectionInfo,
        path: &str,
        authorization: &[&str],
    ) -> Result<Option<Arc<Identity>>, Code> {
        let headers = authorization.iter().map(|text| (AUTHORIZATION, text.parse().unwrap())).collect();
        let identity = access.authenticate(path, &headers, connection).map_err(|status| status.code())?;
        if let Some(identity) = &identity {
            access.authorize(path, identity, connection).map_err(|status| status.code())?;
        }
        Ok(identity)
    }

    #[test]
    fn a_bearer_token_identifies_the_caller_with_and_without_the_cache() {
        let (access, key, _directory) = access();
        let connection = ConnectionInfo::default();
        for scheme in ["Bearer", "bearer", "bearer"] {
            let identity = call(&access, &connection, GET, &[&format!("{scheme} {key}")]).unwrap().unwrap();
            assert_eq!(&*identity.name, "key:me");
        }
    }

    #[test]
    fn a_cached_identity_is_used_for_its_own_header_only() {
        let (access, key, _directory) = access();
        let connection = ConnectionInfo::default();
        let good = format!("Bearer {key}");
        assert!(call(&access, &connection, GET, &[&good]).is_ok());
        for headers in [&[][..], &["Bearer x"], &[&format!("Basic {key}")], &[&key], &[&good, "Bearer x"]] {
            let refused = call(&access, &connection, GET, headers).map(|_| ());
            assert_eq!(refused, Err(Code::Unauthenticated), "{headers:?}");
        }
        assert!(call(&access, &connection, GET, &[&good]).is_ok());
    }

    #[test]
    fn a_path_that_is_not_in_the_table_is_denied() {
        let (access, key, _directory) = access();
        let denied = call(&access, &ConnectionInfo::default(), "/nothing", &[&format!("Bearer {key}")]);
        assert_eq!(denied.map(|_| ()), Err(Code::PermissionDenied));
    }

    #[test]
    fn without_authentication_every_call_is_allowed() {
        let identity = call(&AccessControl::default(), &ConnectionInfo::default(), "/nothing", &["Bearer x"]);
        assert!(identity.unwrap().is_none());
    }
}
