//! Somebody who is known, and what may be done in that name.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::api::convert::{InvalidFields, filter};
use crate::api::status::refused;
use crate::model::{
    Coded, Details, ErrorCode, Grant, Namespace, NamespaceScope, Role, TaskFilter, TaskId, TaskSpec, Timestamp,
};
use crate::proto::v1;
use crate::scheduler::{Handle, Refusal, TaskNotFound, TaskSnapshot};

use super::failure_limiter::A_SECOND;
use super::quota::{QuotaExceeded, Reservation, Usage};

/// Somebody who is known.
pub struct Identity {
    /// `key:NAME`, `jwt:SUBJECT` or `cert:SUBJECT`; in tasks, receipts and the audit log.
    pub name: Box<str>,
    grants: Vec<Grant>,
    home: Option<Namespace>,
    /// When it ends; never when `None`.
    pub expires_at: Option<Timestamp>,
    /// Cancelled when it is revoked.
    pub revoked: CancellationToken,
    /// What it has under way.
    pub usage: Arc<Usage>,
}

impl Identity {
    /// An identity; `revoked` ends its streams.
    pub fn new(
        grants: Vec<Grant>,
        expires_at: Option<Timestamp>,
        revoked: CancellationToken,
        usage: Arc<Usage>,
    ) -> Self {
        let home = home(&grants);
        Self { name: usage.name().into(), grants, home, expires_at, revoked, usage }
    }

    /// Whether it has ended.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| now >= at) || self.revoked.is_cancelled()
    }

    /// Whether it has the role in some namespace.
    pub fn holds(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.role.includes(role) && !grant.scopes.is_empty())
    }

    /// Whether it may do anything at all.
    pub fn holds_something(&self) -> bool {
        self.grants.iter().any(|grant| !grant.scopes.is_empty())
    }

    /// Whether it has the role for the server as a whole.
    pub fn holds_everywhere(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.role.includes(role) && grant.scopes.contains(&NamespaceScope::All))
    }

    fn holds_in(&self, role: Role, namespace: &Namespace) -> bool {
        let covers = |grant: &Grant| grant.scopes.iter().any(|scope| scope.contains(namespace));
        self.grants.iter().any(|grant| grant.role.includes(role) && covers(grant))
    }

    /// Where it has the role, when that is not everywhere.
    fn namespaces(&self, role: Role) -> Vec<Namespace> {
        let mut found = Vec::new();
        for grant in self.grants.iter().filter(|grant| grant.role.includes(role)) {
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
}

/// The namespace that is meant when none is named: the only one, or `default`, or none.
fn home(grants: &[Grant]) -> Option<Namespace> {
    let mut scopes = grants.iter().flat_map(|grant| &grant.scopes);
    let usual = Namespace::default();
    if scopes.clone().any(|scope| scope.contains(&usual)) {
        return Some(usual);
    }
    let NamespaceScope::Only(first) = scopes.next()? else { return None };
    scopes.all(|scope| scope.contains(first)).then(|| first.clone())
}

/// Who makes a call.
#[derive(Clone)]
pub struct Caller {
    identity: Option<Arc<Identity>>,
    peer: Option<SocketAddr>,
    /// Made when it is first wanted.
    address: OnceLock<Box<str>>,
}

static USUAL_HOME: LazyLock<Namespace> = LazyLock::new(Namespace::default);

/// Gives services their callers.
#[derive(Clone, Copy)]
pub struct CallerExtractor {
    authenticates: bool,
}

impl CallerExtractor {
    /// A gate; one that does not authenticate lets everybody do everything.
    pub fn new(authenticates: bool) -> Self {
        Self { authenticates }
    }

    /// Who makes this call.
    ///
    /// # Errors
    /// UNAUTHENTICATED when nobody is known who should be: a call that came past the layer.
    pub fn extract<T>(self, request: &Request<T>) -> Result<Caller, Status> {
        let identity = request.extensions().get::<Arc<Identity>>().filter(|_| self.authenticates).cloned();
        if self.authenticates && identity.is_none() {
            return Err(refused(Unauthenticated::Missing));
        }
        Ok(Caller { identity, peer: request.remote_addr(), address: OnceLock::new() })
    }
}

impl Caller {
    /// The identity, or the address of the peer.
    pub fn name(&self) -> &str {
        self.identity.as_ref().map_or_else(|| self.address(), |identity| &identity.name)
    }

    /// The address of the peer.
    pub fn address(&self) -> &str {
        let text = || self.peer.map_or_else(|| "unknown".into(), |address| address.to_string().into());
        self.address.get_or_init(text)
    }

    /// Whether somebody is known.
    pub fn is_known(&self) -> bool {
        self.identity.is_some()
    }

    /// The namespace that is meant when none is named; `None` when one has to be.
    pub fn home(&self) -> Option<&Namespace> {
        match &self.identity {
            Some(identity) => identity.home.as_ref(),
            None => Some(&USUAL_HOME),
        }
    }

    /// Tasks that the text may mean, the likely one first.
    ///
    /// # Errors
    /// [`InvalidFields`] naming `task_id`.
    pub fn task_id_candidates(&self, text: &str) -> Result<Vec<TaskId>, InvalidFields> {
        let home = self.home().unwrap_or(&USUAL_HOME);
        TaskId::candidates(home, text).map_err(|error| InvalidFields::one("task_id", error))
    }

    /// The filter of a request, which sees no further than the role reaches.
    ///
    /// # Errors
    /// INVALID_FIELD, PERMISSION_DENIED.
    pub fn filter(&self, role: Role, wire: Option<v1::TaskFilter>) -> Result<TaskFilter, Status> {
        let mut parsed = filter::filter(wire, self.home().unwrap_or(&USUAL_HOME)).map_err(refused)?;
        parsed.namespaces = self.scope(role, parsed.namespaces).map_err(refused)?;
        Ok(parsed)
    }

    /// The namespaces to look at when those are asked for; none: all.
    ///
    /// # Errors
    /// [`Denied`] when one is not theirs.
    fn scope(&self, role: Role, asked: Vec<Namespace>) -> Result<Vec<Namespace>, Denied> {
        let Some(identity) = self.identity.as_ref().filter(|identity| !identity.holds_everywhere(role)) else {
            return Ok(asked);
        };
        let own = identity.namespaces(role);
        if asked.is_empty() && !own.is_empty() {
            return Ok(own);
        }
        match asked.iter().find(|namespace| !own.contains(namespace)) {
            None if !asked.is_empty() => Ok(asked),
            foreign => Err(self.denied(role, foreign.cloned())),
        }
    }

    /// Whether these may be submitted.
    ///
    /// # Errors
    /// [`Denied`] naming the first namespace that is not theirs.
    pub fn may_submit(&self, specs: &[TaskSpec]) -> Result<(), Denied> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let foreign = |spec: &&TaskSpec| !identity.holds_in(Role::Submitter, &spec.options.namespace);
        match specs.iter().find(foreign) {
            None => Ok(()),
            Some(spec) => Err(self.denied(Role::Submitter, Some(spec.options.namespace.clone()))),
        }
    }

    /// Reserves what these tasks take from the caller's limits.
    ///
    /// # Errors
    /// [`QuotaExceeded`].
    pub fn reserve(&self, specs: &[TaskSpec]) -> Result<Option<Reservation>, QuotaExceeded> {
        self.identity.as_ref().map_or(Ok(None), |identity| Usage::reserve(&identity.usage, specs))
    }

    /// The task that is meant, when the caller may do with it what `role` may. A task that the caller
    /// may not see is not there.
    ///
    /// # Errors
    /// INVALID_FIELD, TASK_NOT_FOUND, PERMISSION_DENIED, and what the store says.
    pub async fn find(&self, handle: &Handle, role: Role, text: &str) -> Result<TaskSnapshot, Status> {
        let meant = self.task_id_candidates(text).map_err(refused)?;
        for id in &meant {
            let found = match handle.get(id).await {
                Ok(found) => found,
                Err(Refusal::TaskNotFound(_)) => continue,
                Err(refusal) => return Err(refused(refusal)),
            };
            let namespace = &found.task.spec.options.namespace;
            let Some(identity) = &self.identity else { return Ok(found) };
            if identity.holds_in(role, namespace) {
                return Ok(found);
            }
            if identity.holds_in(Role::Viewer, namespace) {
                return Err(refused(self.denied(role, Some(namespace.clone()))));
            }
        }
        let task = meant.into_iter().next().ok_or_else(|| refused(InvalidFields::one("task_id", "is missing")))?;
        Err(refused(TaskNotFound { task }))
    }

    /// The id of that task. Asks the store only when it has to know the task's namespace.
    ///
    /// # Errors
    /// As [`Caller::find`].
    pub async fn resolve(&self, handle: &Handle, role: Role, text: &str) -> Result<TaskId, Status> {
        let unbound = self.identity.as_ref().is_none_or(|identity| identity.holds_everywhere(role));
        match <[TaskId; 1]>::try_from(self.task_id_candidates(text).map_err(refused)?) {
            Ok([id]) if unbound => Ok(id),
            _ => Ok(self.find(handle, role, text).await?.task.spec.id.clone()),
        }
    }

    fn denied(&self, role: Role, namespace: Option<Namespace>) -> Denied {
        Denied { identity: self.name().to_owned(), role: Some(role), namespace }
    }
}

/// Nobody who is known calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// There is no token.
    #[error("a token is needed: send `authorization: Bearer TOKEN`")]
    Missing,
    /// There is one that proves nothing: unknown, revoked, or signed by nobody we trust.
    #[error("the token is not valid")]
    Invalid,
    /// It was one.
    #[error("the token has expired or was revoked")]
    Expired,
    /// It was not looked at: too many from that address were not valid.
    #[error("too many tokens from your address were not valid")]
    RateLimited {
        /// Time after which it would be.
        wait: Duration,
    },
}

impl Coded for Unauthenticated {
    fn code(&self) -> ErrorCode {
        match self {
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::Missing | Self::Invalid | Self::Expired => ErrorCode::Unauthenticated,
        }
    }

    fn details(&self) -> Details {
        let Self::RateLimited { wait } = self else { return Details::default() };
        let what = format!("at most {A_SECOND} tokens a second that are not valid");
        Details {
            metadata: vec![("limit", A_SECOND.to_string())],
            retry_after: Some(*wait),
            quota: Some(("address".to_owned(), what)),
            ..Details::default()
        }
    }
}

/// The caller may not do that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who.
    pub identity: String,
    /// What role it takes; `None` when nobody has it.
    pub role: Option<Role>,
    /// Where; `None`: everywhere.
    pub namespace: Option<Namespace>,
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, role, namespace } = self;
        match (role, namespace) {
            (None, _) => write!(f, "{identity} may not call that: it is not in the list of what can be called"),
            (Some(role), None) => write!(f, "{identity} may not do that: it takes the role {role} in all namespaces"),
            (Some(role), Some(namespace)) => {
                write!(f, "{identity} may not do that: it takes the role {role} in namespace `{namespace}`")
            }
        }
    }
}

impl std::error::Error for Denied {}

impl Coded for Denied {
    fn code(&self) -> ErrorCode {
        ErrorCode::PermissionDenied
    }

    fn details(&self) -> Details {
        let mut metadata = vec![("identity", self.identity.clone())];
        metadata.extend(self.role.map(|role| ("role", role.to_string())));
        let everywhere = self.role.map(|_| "*".to_owned());
        let namespace = self.namespace.as_ref().map(ToString::to_string).or(everywhere);
        metadata.extend(namespace.map(|namespace| ("namespace", namespace)));
        Details { metadata, ..Details::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::LimitOptions;
    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn caller(grants: &[(&str, &[&str])]) -> Caller {
        let grant = |(role, names): &(&str, &[&str])| {
            Grant::parse(role, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let grants = grants.iter().map(grant).collect();
        let usage = Arc::new(Usage::new("key:x", &LimitOptions::default(), None));
        let identity = Identity::new(grants, None, CancellationToken::new(), usage);
        Caller { identity: Some(Arc::new(identity)), peer: None, address: OnceLock::new() }
    }

    #[test]
    fn the_namespace_that_nobody_names_is_the_only_one_or_the_default_one() {
        assert_eq!(caller(&[("viewer", &["team"])]).home(), Some(&namespace("team")));
        assert_eq!(caller(&[("viewer", &["*"])]).home(), Some(&Namespace::default()));
        assert_eq!(caller(&[("viewer", &["a", "default"])]).home(), Some(&Namespace::default()));
        assert_eq!(caller(&[("viewer", &["a"]), ("submitter", &["a"])]).home(), Some(&namespace("a")));
        assert_eq!(caller(&[("viewer", &["a", "b"])]).home(), None);
    }

    #[test]
    fn a_scope_is_never_wider_than_the_role() {
        let mixed = caller(&[("viewer", &["a"]), ("operator", &["b", "c"])]);
        let names = |names: &[&str]| names.iter().map(|name| namespace(name)).collect::<Vec<_>>();
        assert_eq!(mixed.scope(Role::Viewer, Vec::new()).unwrap(), names(&["a", "b", "c"]));
        assert_eq!(mixed.scope(Role::Operator, Vec::new()).unwrap(), names(&["b", "c"]));
        assert_eq!(mixed.scope(Role::Operator, names(&["c"])).unwrap(), names(&["c"]));
        let denied = mixed.scope(Role::Operator, names(&["b", "a"])).unwrap_err();
        assert_eq!(denied.namespace, Some(namespace("a")));
        assert!(mixed.scope(Role::Admin, Vec::new()).is_err(), "nothing is not everything");
        let all = caller(&[("viewer", &["*"])]);
        assert_eq!(all.scope(Role::Viewer, Vec::new()).unwrap(), Vec::new());
        assert!(all.scope(Role::Operator, Vec::new()).is_err());
    }

    #[test]
    fn a_call_that_came_past_the_layer_is_nobodys() {
        assert!(CallerExtractor::new(true).extract(&Request::new(())).is_err());
        assert!(!CallerExtractor::new(false).extract(&Request::new(())).unwrap().is_known());
    }

    #[test]
    fn a_bare_name_is_looked_for_where_the_caller_is_at_home() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        let team = caller(&[("viewer", &["team"])]);
        let texts = |caller: &Caller, text| {
            caller.task_id_candidates(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(&team, "mine"), ["team/mine"]);
        assert_eq!(texts(&team, uuid), [uuid.to_owned(), format!("team/{uuid}")]);
        assert_eq!(texts(&team, "other/x"), ["other/x"]);
        assert_eq!(texts(&caller(&[("viewer", &["*"])]), "mine"), ["mine"]);
        assert!(team.task_id_candidates("a b").is_err());
    }
}
