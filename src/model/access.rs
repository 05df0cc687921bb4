//! Who may do what: roles, and the namespaces in which they hold.

use std::fmt;

use super::id::{NameError, Namespace};

/// What somebody may do in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads tasks, events, results and output.
    Viewer,
    /// Viewer; also submits and cancels tasks.
    Submitter,
    /// Takes work for handlers; neither submits nor reads tasks.
    Worker,
    /// Submitter; also deletes finished tasks and, where it holds everywhere, changes pools.
    Operator,
    /// Everything, such as ending the server where it holds everywhere.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Submitter, Self::Worker, Self::Operator, Self::Admin];

    /// As configurations and tokens name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reverses [`Role::name`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == text)
    }

    /// Whether who has this role may do what `wanted` may.
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

/// Where a role holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceScope {
    /// In every namespace, and for the server as a whole; written `*`.
    All,
    /// In this namespace only.
    Only(Namespace),
}

impl NamespaceScope {
    /// Parses a namespace or `*`.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::All) } else { Namespace::parse(text).map(Self::Only) }
    }

    /// Whether it includes the namespace.
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

/// A role, and where it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Where; nowhere when empty.
    pub scopes: Vec<NamespaceScope>,
}

impl Grant {
    /// Parses the names of a role and of namespaces (or `*`).
    ///
    /// # Errors
    /// Says which name is wrong, and what would be right.
    pub fn parse(role: &str, namespaces: &[String]) -> Result<Self, String> {
        let found = Role::parse(role).ok_or_else(|| {
            let known = Role::ALL.map(Role::name).join(", ");
            format!("role {role:?} is not known, roles are: {known}")
        })?;
        if namespaces.is_empty() {
            return Err("there is no namespace; name some, or \"*\" for all".to_owned());
        }
        let parsed = |name: &String| NamespaceScope::parse(name).map_err(|error| format!("namespace {name:?} {error}"));
        Ok(Self { role: found, scopes: namespaces.iter().map(parsed).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_build_on_each_other_and_a_worker_stands_aside() {
        use Role::{Admin, Operator, Submitter, Viewer, Worker};
        let may = |role: Role| Role::ALL.into_iter().filter(|wanted| role.includes(*wanted)).collect::<Vec<_>>();
        assert_eq!(may(Viewer), [Viewer]);
        assert_eq!(may(Submitter), [Viewer, Submitter]);
        assert_eq!(may(Worker), [Worker]);
        assert_eq!(may(Operator), [Viewer, Submitter, Operator]);
        assert_eq!(may(Admin), Role::ALL);
    }

    #[test]
    fn a_grant_names_what_is_wrong_with_it() {
        let grant = |role: &str, namespaces: &[&str]| {
            Grant::parse(role, &namespaces.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert!(grant("root", &["*"]).unwrap_err().contains("viewer, submitter, worker, operator, admin"));
        assert!(grant("viewer", &[]).unwrap_err().contains("no namespace"));
        assert!(grant("viewer", &["a b"]).unwrap_err().contains("\"a b\""));
        assert!(grant("viewer", &["team*"]).is_err(), "a star stands alone");
        assert_eq!(grant("viewer", &["*"]).unwrap().scopes, [NamespaceScope::All]);
    }
}
