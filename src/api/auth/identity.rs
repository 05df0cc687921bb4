//! An authenticated caller: its name, its roles and its quota.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::model::{Grant, HandlerName, Namespace, NamespaceScope, Role, Sharer, Timestamp};

use super::quota::Usage;

pub struct Identity {
    /// `key:NAME`, `jwt:SUBJECT` or `cert:SUBJECT`. Stored in tasks and events, and written to the audit log.
    pub name: Box<str>,
    grants: Vec<Grant>,
    default_namespace: Option<Namespace>,
    /// `None`: the identity does not expire.
    pub expires_at: Option<Timestamp>,
    /// Cancelled when the identity is revoked; ends its streams.
    pub revoked: CancellationToken,
    pub usage: Arc<Usage>,
    /// Whose share of the server's slots and memory is used: the caller's, and that of its namespace if it has one only.
    pub sharer: Arc<Sharer>,
}

impl Identity {
    pub fn new(
        grants: Vec<Grant>,
        expires_at: Option<Timestamp>,
        revoked: CancellationToken,
        usage: Arc<Usage>,
    ) -> Self {
        let default_namespace = default_namespace(&grants);
        let sharer = usage.sharer(only_namespace(&grants));
        Self { name: usage.name().into(), grants, default_namespace, expires_at, revoked, usage, sharer }
    }

    /// Whether the identity has expired or was revoked.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| now >= at) || self.revoked.is_cancelled()
    }

    /// The namespace of a request that names none; `None` if such a request is ambiguous.
    pub fn default_namespace(&self) -> Option<&Namespace> {
        self.default_namespace.as_ref()
    }

    /// Whether the identity has any role in any namespace.
    pub fn has_any_role(&self) -> bool {
        self.grants.iter().any(|grant| !grant.scopes.is_empty())
    }

    /// Whether the identity has the role in at least one namespace.
    pub fn has_role(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.includes(role) && !grant.scopes.is_empty())
    }

    /// Whether the identity has the role in all namespaces.
    pub fn has_role_everywhere(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.includes(role) && grant.scopes.contains(&NamespaceScope::All))
    }

    pub fn has_role_in(&self, role: Role, namespace: &Namespace) -> bool {
        let covers = |grant: &Grant| grant.scopes.iter().any(|scope| scope.contains(namespace));
        self.grants.iter().any(|grant| grant.includes(role) && covers(grant))
    }

    /// The single namespaces in which the identity has the role.
    pub fn namespaces(&self, role: Role) -> Vec<Namespace> {
        let mut found = Vec::new();
        for grant in self.grants.iter().filter(|grant| grant.includes(role)) {
            for scope in &grant.scopes {
                if let NamespaceScope::Only(namespace) = scope
                    && !found.contains(namespace)
                {
                    found.push(namespace.clone());
                }
            }
        }
        found
    }

    /// Whether workers of the identity may run the tasks of the handler in a namespace; `None`: in all.
    pub fn may_offer(&self, handler: &HandlerName, namespace: Option<&Namespace>) -> bool {
        let covers = |scope: &NamespaceScope| match namespace {
            Some(namespace) => scope.contains(namespace),
            None => *scope == NamespaceScope::All,
        };
        self.grants.iter().any(|grant| grant.offers(handler) && grant.scopes.iter().any(covers))
    }
}

/// `default` if the grants contain it; otherwise the only namespace that they contain.
fn default_namespace(grants: &[Grant]) -> Option<Namespace> {
    let default = Namespace::default();
    if grants.iter().flat_map(|grant| &grant.scopes).any(|scope| scope.contains(&default)) {
        return Some(default);
    }
    only_namespace(grants).cloned()
}

/// The namespace to which all grants are limited.
fn only_namespace(grants: &[Grant]) -> Option<&Namespace> {
    let mut scopes = grants.iter().flat_map(|grant| &grant.scopes);
    let NamespaceScope::Only(first) = scopes.next()? else { return None };
    scopes.all(|scope| matches!(scope, NamespaceScope::Only(other) if other == first)).then_some(first)
}
