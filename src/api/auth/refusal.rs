//! Why a call is refused before it reaches its service.

use std::time::Duration;

use crate::model::{Coded, Details, ErrorCode, HandlerName, Namespace, PoolName, Priority, Role};

use super::failure_limiter::FAILURES_PER_SECOND;

/// The call has no valid credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    #[error("no token; send the header `authorization: Bearer TOKEN`")]
    Missing,
    /// No rule grants a role to the client certificate. Contains the reason, for the log.
    #[error("no token, and no role is granted to the client certificate")]
    Certificate(&'static str),
    /// The token is malformed, unknown or revoked, or its signature is not trusted. Contains the reason, for the log only.
    #[error("invalid token")]
    Invalid(&'static str),
    #[error("the token has expired or was revoked")]
    Expired,
    /// The token was not checked, because too many invalid tokens came from the same address.
    #[error("too many invalid tokens from your address; retry later")]
    RateLimited { wait: Duration },
}

impl Unauthenticated {
    /// The reason for the log. Never contains a part of the token.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no token and no client certificate",
            Self::Certificate(reason) | Self::Invalid(reason) => reason,
            Self::Expired => "the token has expired or was revoked",
            Self::RateLimited { .. } => "too many invalid tokens from this address",
        }
    }
}

impl Coded for Unauthenticated {
    fn code(&self) -> ErrorCode {
        match self {
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            _ => ErrorCode::Unauthenticated,
        }
    }

    fn details(&self) -> Details {
        let Self::RateLimited { wait } = self else { return Details::default() };
        let description = format!("at most {FAILURES_PER_SECOND} invalid tokens per second");
        Details {
            metadata: vec![("limit", FAILURES_PER_SECOND.to_string())],
            retry_after: Some(*wait),
            quota: Some(("address".to_owned(), description)),
            ..Details::default()
        }
    }
}

/// Where a role is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleScope {
    Namespace(Namespace),
    /// In at least one namespace.
    AnyNamespace,
    AllNamespaces,
}

impl std::fmt::Display for RoleScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(namespace) => write!(f, "namespace `{namespace}`"),
            Self::AnyNamespace => f.write_str("at least one namespace"),
            Self::AllNamespaces => f.write_str("all namespaces"),
        }
    }
}

/// The caller lacks a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionDenied {
    pub identity: String,
    /// The required role; `None` if no role allows the call.
    pub role: Option<Role>,
    pub scope: RoleScope,
    /// The priority that requires the role; `None`: the call itself does.
    pub priority: Option<Priority>,
}

/// The caller does not have the role worker for this handler, in a namespace of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerDenied {
    pub identity: String,
    pub handler: HandlerName,
    pub pool: PoolName,
    /// Where the role is missing; `None`: in all namespaces.
    pub namespace: Option<Namespace>,
}

impl std::fmt::Display for HandlerDenied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, handler, pool, namespace } = self;
        write!(f, "permission denied for {identity}: requires role worker in ")?;
        match namespace {
            None => write!(f, "all namespaces")?,
            Some(namespace) => write!(f, "namespace `{namespace}`")?,
        }
        write!(f, " for handler `{handler}` in pool `{pool}`")
    }
}

impl std::error::Error for HandlerDenied {}

impl Coded for HandlerDenied {
    fn code(&self) -> ErrorCode {
        ErrorCode::PermissionDenied
    }

    fn details(&self) -> Details {
        let namespace = self.namespace.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
        let metadata = [
            ("identity", self.identity.clone()),
            ("role", Role::Worker.to_string()),
            ("namespace", namespace),
            ("pool", self.pool.to_string()),
        ];
        Details { metadata: metadata.into(), ..Details::default() }.with_resource("handler", &self.handler)
    }
}

impl std::fmt::Display for PermissionDenied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, role, scope, priority } = self;
        write!(f, "permission denied for {identity}: ")?;
        if let Some(priority) = priority {
            write!(f, "priority {priority} ")?;
        }
        match role {
            None => write!(f, "no role allows this call"),
            Some(role) => write!(f, "requires role {role} in {scope}"),
        }
    }
}

impl std::error::Error for PermissionDenied {}

impl Coded for PermissionDenied {
    fn code(&self) -> ErrorCode {
        ErrorCode::PermissionDenied
    }

    fn details(&self) -> Details {
        let mut metadata = vec![("identity", self.identity.clone())];
        metadata.extend(self.role.map(|role| ("role", role.to_string())));
        let namespace = match &self.scope {
            RoleScope::Namespace(namespace) => Some(namespace.to_string()),
            RoleScope::AnyNamespace => None,
            RoleScope::AllNamespaces => Some("*".to_owned()),
        };
        metadata.extend(namespace.filter(|_| self.role.is_some()).map(|namespace| ("namespace", namespace)));
        Details { metadata, ..Details::default() }
    }
}
