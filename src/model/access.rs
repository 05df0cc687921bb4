//! Access control: roles, and the namespaces in which they apply.

use std::fmt;

use super::id::{HandlerName, NameError, Namespace};
use super::role_names::RoleNames;

/// What a caller may do in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May read tasks, events, results and output.
    Viewer,
    /// Viewer; may also submit and cancel tasks.
    Submitter,
    /// May run tasks as a remote worker; may neither submit nor read others.
    Worker,
    /// Submitter; may also submit CRITICAL tasks, delete finished tasks and, with the scope `*`, change pools.
    Operator,
    /// May do everything; with the scope `*` also shut the server down.
    Admin,
}

impl Role {
    /// In the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Submitter, Self::Worker, Self::Operator, Self::Admin];

    /// Name in configuration files and tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Inverse of [`Role::name`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == text)
    }

    /// Whether this role permits everything that `wanted` permits.
    pub const fn includes(self, wanted: Self) -> bool {
        match wanted {
            Self::Viewer => !matches!(self, Self::Worker),
            Self::Submitter => matches!(self, Self::Submitter | Self::Operator | Self::Admin),
            Self::Worker => matches!(self, Self::Worker | Self::Admin),
            Self::Operator => matches!(self, Self::Operator | Self::Admin),
            Self::Admin => matches!(self, Self::Admin),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a role applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceScope {
    /// In all namespaces and for the server as a whole; written `*`.
    All,
    Only(Namespace),
}

impl NamespaceScope {
    /// Parses a namespace or `*`.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::All) } else { Namespace::parse(text).map(Self::Only) }
    }

    pub fn contains(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::Only(own) => own == namespace,
        }
    }
}

impl fmt::Display for NamespaceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Only(namespace) => namespace.fmt(f),
        }
    }
}

/// Roles and where they apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// At least one.
    roles: Vec<Role>,
    /// If empty, the roles apply nowhere.
    pub scopes: Vec<NamespaceScope>,
    /// Handlers that a worker may offer; empty: all.
    pub handlers: Vec<HandlerName>,
}

impl Grant {
    /// Parses the names of roles and the names of namespaces (or `*`).
    ///
    /// # Errors
    /// Names the invalid value and the valid ones.
    pub fn parse(roles: &RoleNames, namespaces: &[String]) -> Result<Self, String> {
        let valid = || Role::ALL.map(Role::name).join(", ");
        if roles.0.is_empty() {
            return Err(format!("no role is given; use one of {}", valid()));
        }
        let parsed = |name: &String| {
            Role::parse(name).ok_or_else(|| format!("role {name:?} does not exist; use one of {}", valid()))
        };
        let roles = roles.0.iter().map(parsed).collect::<Result<_, _>>()?;
        if namespaces.is_empty() {
            return Err("no namespace is given; list at least one, or \"*\" for all".to_owned());
        }
        let parsed = |name: &String| NamespaceScope::parse(name).map_err(|error| format!("namespace {name:?} {error}"));
        let scopes = namespaces.iter().map(parsed).collect::<Result<_, _>>()?;
        Ok(Self { roles, scopes, handlers: Vec::new() })
    }

    /// Whether one of the roles permits everything that `wanted` permits.
    pub fn includes(&self, wanted: Role) -> bool {
        self.roles.iter().any(|role| role.includes(wanted))
    }

    /// Limits the role worker to these handlers. No handlers are no limit.
    ///
    /// # Errors
    /// For an invalid name, without the role worker, and with a role that may offer all handlers anyway.
    pub fn for_handlers(self, handlers: &[String]) -> Result<Self, String> {
        let is_limited = self.roles.contains(&Role::Worker) && !self.includes(Role::Admin);
        if !handlers.is_empty() && !is_limited {
            let roles: Vec<_> = self.roles.iter().map(|role| role.name()).collect();
            return Err(format!(
                "role {} has no handlers; only role {} can be limited to some",
                roles.join(","),
                Role::Worker
            ));
        }
        let parsed = |name: &String| HandlerName::parse(name).map_err(|error| format!("handler {name:?} {error}"));
        Ok(Self { handlers: handlers.iter().map(parsed).collect::<Result<_, _>>()?, ..self })
    }

    /// Whether a worker with this role may offer the handler.
    pub fn offers(&self, handler: &HandlerName) -> bool {
        self.includes(Role::Worker) && (self.handlers.is_empty() || self.handlers.contains(handler))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_lower_ones_except_worker() {
        use Role::{Admin, Operator, Submitter, Viewer, Worker};
        let may = |role: Role| Role::ALL.into_iter().filter(|wanted| role.includes(*wanted)).collect::<Vec<_>>();
        assert_eq!(may(Viewer), [Viewer]);
        assert_eq!(may(Submitter), [Viewer, Submitter]);
        assert_eq!(may(Worker), [Worker]);
        assert_eq!(may(Operator), [Viewer, Submitter, Operator]);
        assert_eq!(may(Admin), Role::ALL);
    }

    #[test]
    fn an_invalid_grant_is_refused_with_the_invalid_name() {
        let grant = |role: &str, namespaces: &[&str]| {
            Grant::parse(&role.into(), &namespaces.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert!(grant("root", &["*"]).unwrap_err().contains("viewer, submitter, worker, operator, admin"));
        assert!(grant("viewer", &[]).unwrap_err().contains("no namespace"));
        assert!(grant("viewer", &["a b"]).unwrap_err().contains("\"a b\""));
        assert!(grant("viewer", &["team*"]).is_err(), "a star is only valid by itself");
        assert_eq!(grant("viewer", &["*"]).unwrap().scopes, [NamespaceScope::All]);
        let for_handlers = |role, name: &str| grant(role, &["*"]).unwrap().for_handlers(&[name.to_owned()]);
        assert!(for_handlers("worker", "a b").unwrap_err().contains("\"a b\""));
        assert!(for_handlers("admin", "resize").unwrap_err().contains("only role worker"));
        assert!(grant("viewer", &["*"]).unwrap().for_handlers(&[]).is_ok());
    }

    #[test]
    fn a_grant_permits_what_any_of_its_roles_permits() {
        let grant = |roles: &[&str]| {
            let names = RoleNames(roles.iter().map(|name| (*name).to_owned()).collect());
            Grant::parse(&names, &["*".to_owned()])
        };
        let both = grant(&["worker", "submitter"]).unwrap();
        let permitted = Role::ALL.map(|role| both.includes(role));
        assert_eq!(permitted, [true, true, true, false, false]);
        let resize = ["resize".to_owned()];
        let limited = both.for_handlers(&resize).unwrap();
        assert!(limited.offers(&HandlerName::parse("resize").unwrap()));
        assert!(!limited.offers(&HandlerName::parse("thumb").unwrap()));
        let error = grant(&["worker", "admin"]).unwrap().for_handlers(&resize).unwrap_err();
        assert!(error.contains("worker,admin"), "an admin may offer all handlers: {error}");
        assert!(grant(&["worker", "root"]).unwrap_err().contains("\"root\""));
        assert!(grant(&[]).unwrap_err().contains("no role"));
    }

    #[test]
    fn a_worker_offers_the_handlers_of_its_grant_or_all() {
        let (resize, thumb) = (HandlerName::parse("resize").unwrap(), HandlerName::parse("thumb").unwrap());
        let grant = |role: &str| Grant::parse(&role.into(), &["*".to_owned()]).unwrap();
        let limited = grant("worker").for_handlers(&["resize".to_owned()]).unwrap();
        assert!(limited.offers(&resize) && !limited.offers(&thumb));
        assert!(grant("worker").offers(&thumb) && grant("admin").offers(&thumb) && !grant("operator").offers(&thumb));
    }
}
