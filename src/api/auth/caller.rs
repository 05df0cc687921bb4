//! The caller of a service method, and what that caller may see and do.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, OnceLock};

use tonic::{Request, Status};

use crate::api::convert::{InvalidFields, batch, filter, schedule};
use crate::api::listener::connection_limit::network;
use crate::api::status::into_status;
use crate::model::{
    BatchKey, BatchRef, HandlerName, Namespace, PoolSpec, Priority, Role, ScheduleKey, ScheduleRef, Share, Sharer,
    TaskFilter, TaskId, TaskOptions, TaskSpec,
};
use crate::proto::v1;
use crate::scheduler::{
    BatchNotFound, BatchSnapshot, Handle, Refusal, ScheduleNotFound, TaskNotFound, TaskParts, TaskSnapshot,
};

use super::connection_info::{ConnectionInfo, sharer_of};
use super::identity::Identity;
use super::permissions;
use super::quota::{QuotaExceeded, Reservation, Usage};
use super::refusal::{HandlerDenied, PermissionDenied, RoleScope, Unauthenticated};

#[derive(Clone)]
pub struct Caller {
    /// `None` if authentication is off: everything is allowed.
    identity: Option<Arc<Identity>>,
    peer: Option<SocketAddr>,
    /// Whose share of the memory for requests is used.
    pub sharer: Option<Arc<Sharer>>,
    /// Text of `peer`, formatted on first use.
    address: OnceLock<Box<str>>,
}

static DEFAULT_NAMESPACE: LazyLock<Namespace> = LazyLock::new(Namespace::default);

/// Reads the caller of a request from the request's extensions.
#[derive(Clone, Copy)]
pub struct CallerExtractor {
    requires_identity: bool,
}

impl CallerExtractor {
    pub fn new(requires_identity: bool) -> Self {
        Self { requires_identity }
    }

    /// # Errors
    /// UNAUTHENTICATED if an identity is required and the request did not pass the authentication layer.
    pub fn extract<T>(self, request: &Request<T>) -> Result<Caller, Status> {
        let identity = request.extensions().get::<Arc<Identity>>().filter(|_| self.requires_identity).cloned();
        if self.requires_identity && identity.is_none() {
            return Err(into_status(Unauthenticated::Missing));
        }
        let peer = request.extensions().get::<Arc<ConnectionInfo>>().and_then(|connection| connection.peer);
        Ok(Caller { identity, peer, sharer: sharer_of(request.extensions()), address: OnceLock::new() })
    }
}

impl Caller {
    /// The name of the identity, or the address of the peer if authentication is off.
    pub fn name(&self) -> &str {
        self.identity.as_ref().map_or_else(|| self.address(), |identity| &identity.name)
    }

    /// The address of the peer.
    pub fn address(&self) -> &str {
        let text = || self.peer.map_or_else(|| "unknown".into(), |address| address.to_string().into());
        self.address.get_or_init(text)
    }

    /// Whose share of the memory the caller uses: that of its identity, or of its address if authentication is off.
    pub fn share_name(&self) -> Arc<str> {
        let address = || self.peer.map_or_else(String::new, |peer| network(peer.ip()).to_string());
        self.identity.as_ref().map_or_else(|| address().into(), |identity| (*identity.name).into())
    }

    /// The RPCs that the caller may call, at least in one namespace.
    pub fn methods(&self) -> impl Iterator<Item = &'static str> {
        permissions::granted(self.identity.as_deref())
    }

    pub fn is_authenticated(&self) -> bool {
        self.identity.is_some()
    }

    /// The namespace of a request that names none; `None` if the request has to name one.
    pub fn default_namespace(&self) -> Option<&Namespace> {
        match &self.identity {
            Some(identity) => identity.default_namespace(),
            None => Some(&DEFAULT_NAMESPACE),
        }
    }

    /// The task ids that a text can stand for, the most likely one first.
    ///
    /// # Errors
    /// [`InvalidFields`] naming `task_id`.
    pub fn task_id_candidates(&self, text: &str) -> Result<Vec<TaskId>, InvalidFields> {
        let namespace = self.default_namespace().unwrap_or(&DEFAULT_NAMESPACE);
        TaskId::candidates(namespace, text).map_err(|error| InvalidFields::one("task_id", error))
    }

    /// Converts the filter of a request and limits it to the namespaces in which the caller has `role`.
    ///
    /// # Errors
    /// INVALID_FIELD, PERMISSION_DENIED.
    pub fn filter(&self, role: Role, wire: Option<v1::TaskFilter>) -> Result<TaskFilter, Status> {
        let namespace = self.default_namespace().unwrap_or(&DEFAULT_NAMESPACE);
        let mut parsed = filter::filter(wire, namespace).map_err(into_status)?;
        parsed.namespaces = self.limit_namespaces(role, parsed.namespaces).map_err(into_status)?;
        Ok(parsed)
    }

    /// The namespaces to search if `requested` are requested; empty: all.
    ///
    /// # Errors
    /// [`PermissionDenied`] if the caller lacks the role in one of them.
    pub fn limit_namespaces(&self, role: Role, requested: Vec<Namespace>) -> Result<Vec<Namespace>, PermissionDenied> {
        let Some(identity) = self.identity.as_ref().filter(|identity| !identity.has_role_everywhere(role)) else {
            return Ok(requested);
        };
        let allowed = identity.namespaces(role);
        if requested.is_empty() && !allowed.is_empty() {
            return Ok(allowed);
        }
        match requested.iter().find(|namespace| !allowed.contains(namespace)) {
            None if !requested.is_empty() => Ok(requested),
            foreign => Err(self.denied(role, foreign.cloned().map_or(RoleScope::AnyNamespace, RoleScope::Namespace))),
        }
    }

    /// Checks whether the caller may submit these tasks.
    ///
    /// # Errors
    /// [`PermissionDenied`] naming the first namespace in which the caller may not submit, or not with the priority of the
    /// task: CRITICAL tasks start before those of all other namespaces.
    pub fn may_submit(&self, specs: &[TaskSpec]) -> Result<(), PermissionDenied> {
        let Some(identity) = &self.identity else { return Ok(()) };
        for TaskOptions { namespace, priority, .. } in specs.iter().map(|spec| &*spec.options) {
            if !identity.has_role_in(Role::Submitter, namespace) {
                return Err(self.denied(Role::Submitter, RoleScope::Namespace(namespace.clone())));
            }
            if *priority == Priority::Critical && !identity.has_role_in(Role::Operator, namespace) {
                let denied = self.denied(Role::Operator, RoleScope::Namespace(namespace.clone()));
                return Err(PermissionDenied { priority: Some(*priority), ..denied });
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`PermissionDenied`] if the caller lacks the role in the namespace.
    pub fn check_role(&self, role: Role, namespace: &Namespace) -> Result<(), PermissionDenied> {
        match &self.identity {
            Some(identity) if !identity.has_role_in(role, namespace) => {
                Err(self.denied(role, RoleScope::Namespace(namespace.clone())))
            }
            _ => Ok(()),
        }
    }

    /// Reserves the caller's quota for these tasks.
    ///
    /// # Errors
    /// [`QuotaExceeded`].
    pub fn reserve(&self, specs: &[TaskSpec]) -> Result<Option<Reservation>, QuotaExceeded> {
        self.identity.as_ref().map_or(Ok(None), |identity| Usage::reserve(&identity.usage, specs))
    }

    /// Finds a task in which the caller has `role`, with these parts, and reserves the memory for a response with it. A task that the
    /// caller may not see does not exist for it.
    ///
    /// # Errors
    /// INVALID_FIELD, TASK_NOT_FOUND, PERMISSION_DENIED, MEMORY_FULL, and the errors of the store.
    pub async fn find(
        &self,
        handle: &Handle,
        role: Role,
        text: &str,
        parts: TaskParts,
    ) -> Result<(TaskSnapshot, Share), Status> {
        let candidates = self.task_id_candidates(text).map_err(into_status)?;
        // Before the task is looked up, so that the time of an answer does not tell whether a foreign task exists.
        for id in candidates.iter().filter(|id| self.may_see(role, id)) {
            let (found, memory) = match handle.get_for_response(id, parts, &self.share_name()).await {
                Ok(found) => found,
                Err(Refusal::TaskNotFound(_)) => continue,
                Err(refusal) => return Err(into_status(refusal)),
            };
            let namespace = &found.task.spec.options.namespace;
            let Some(identity) = &self.identity else { return Ok((found, memory)) };
            if identity.has_role_in(role, namespace) {
                return Ok((found, memory));
            }
            if identity.has_role_in(Role::Viewer, namespace) {
                return Err(into_status(self.denied(role, RoleScope::Namespace(namespace.clone()))));
            }
        }
        let task =
            candidates.into_iter().next().ok_or_else(|| into_status(InvalidFields::one("task_id", "is required")))?;
        Err(into_status(TaskNotFound { task }))
    }

    /// Whether the caller may see a task with this ID, as far as the ID tells.
    fn may_see(&self, role: Role, id: &TaskId) -> bool {
        let (Some(identity), Some(namespace)) = (&self.identity, id.namespace()) else { return true };
        identity.has_role_in(role, &namespace) || identity.has_role_in(Role::Viewer, &namespace)
    }

    /// The id of a task. Reads the task only if its namespace is needed to decide.
    ///
    /// # Errors
    /// As [`Caller::find`].
    pub async fn resolve(&self, handle: &Handle, role: Role, text: &str) -> Result<TaskId, Status> {
        let is_allowed = self.identity.as_ref().is_none_or(|identity| identity.has_role_everywhere(role));
        match <[TaskId; 1]>::try_from(self.task_id_candidates(text).map_err(into_status)?) {
            Ok([id]) if is_allowed => Ok(id),
            _ => Ok(self.find(handle, role, text, TaskParts::default()).await?.0.task.spec.id.clone()),
        }
    }

    /// Finds a batch in whose namespace the caller has `role`. A batch that the caller may not see does not exist for it.
    /// An ID alone is that of the caller's namespace, or, if it is a UUID, of any.
    ///
    /// # Errors
    /// INVALID_FIELD, BATCH_NOT_FOUND, PERMISSION_DENIED, and the errors of the scheduler.
    pub async fn find_batch(&self, handle: &Handle, role: Role, text: &str) -> Result<BatchSnapshot, Status> {
        let BatchRef { namespace, id } = batch::batch_ref(text).map_err(into_status)?;
        let in_any = namespace.is_none() && id.is_uuid();
        let namespace = namespace.or_else(|| self.default_namespace().cloned()).unwrap_or_default();
        let identity = self.identity.clone();
        let sees = move |namespace: &Namespace| {
            let has = |identity: &Arc<Identity>, role| identity.has_role_in(role, namespace);
            identity.as_ref().is_none_or(|identity| has(identity, role) || has(identity, Role::Viewer))
        };
        let key = BatchKey { namespace, id: id.clone() };
        // Before the batch is looked up, so that the time of an answer does not tell whether a foreign batch exists.
        let own = if sees(&key.namespace) {
            handle.batch(key.clone()).await
        } else {
            Err(BatchNotFound { batch: key.clone() }.into())
        };
        let snapshot = match own {
            Err(Refusal::BatchNotFound(not_found)) if in_any => {
                let found = handle.batch_with_uuid(id, sees).await.map_err(into_status)?;
                found.ok_or_else(|| into_status(not_found))?
            }
            own => own.map_err(into_status)?,
        };
        self.check_role(role, &snapshot.batch.key.namespace).map_err(into_status)?;
        Ok(snapshot)
    }

    /// The key of a batch.
    ///
    /// # Errors
    /// As [`Caller::find_batch`].
    pub async fn resolve_batch(&self, handle: &Handle, role: Role, text: &str) -> Result<BatchKey, Status> {
        Ok(self.find_batch(handle, role, text).await?.batch.key)
    }

    /// The key of a schedule in whose namespace the caller has `role`. A schedule that the caller may not see does not exist for
    /// it. An ID alone is that of the caller's namespace.
    ///
    /// # Errors
    /// INVALID_FIELD, SCHEDULE_NOT_FOUND, PERMISSION_DENIED.
    pub fn schedule_key(&self, role: Role, text: &str) -> Result<ScheduleKey, Status> {
        let ScheduleRef { namespace, id } = schedule::schedule_ref(text).map_err(into_status)?;
        let namespace = namespace.or_else(|| self.default_namespace().cloned()).unwrap_or_default();
        let has = |role| self.identity.as_ref().is_none_or(|identity| identity.has_role_in(role, &namespace));
        let (is_allowed, is_seen) = (has(role), has(Role::Viewer));
        if !is_allowed && is_seen {
            return Err(into_status(self.denied(role, RoleScope::Namespace(namespace))));
        }
        let schedule = ScheduleKey { namespace, id };
        if is_allowed { Ok(schedule) } else { Err(into_status(ScheduleNotFound { schedule })) }
    }

    /// Whether workers of the caller may run the tasks of the handler, in all namespaces whose tasks the pool takes.
    ///
    /// # Errors
    /// [`HandlerDenied`].
    pub fn may_offer(&self, handler: &HandlerName, pool: &PoolSpec) -> Result<(), HandlerDenied> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let only = pool.namespaces.iter().map(Some);
        let mut namespaces = only.chain(pool.namespaces.is_empty().then_some(None));
        let Some(missing) = namespaces.find(|namespace| !identity.may_offer(handler, *namespace)) else {
            return Ok(());
        };
        let (identity, namespace) = (identity.name.to_string(), missing.cloned());
        Err(HandlerDenied { identity, handler: handler.clone(), namespace, pool: pool.name.clone() })
    }

    fn denied(&self, role: Role, scope: RoleScope) -> PermissionDenied {
        PermissionDenied { identity: self.name().to_owned(), role: Some(role), scope, priority: None }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::super::quota::LimitOptions;
    use super::*;
    use crate::model::{Grant, PoolName};

    fn namespace(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn grant((role, names): &(&str, &[&str])) -> Grant {
        Grant::parse(&(*role).into(), &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn caller(grants: &[(&str, &[&str])]) -> Caller {
        caller_with(grants.iter().map(grant).collect())
    }

    fn caller_with(grants: Vec<Grant>) -> Caller {
        let usage = Arc::new(Usage::new("key:x", &LimitOptions::default(), None));
        let identity = Identity::new(grants, None, CancellationToken::new(), usage);
        Caller { identity: Some(Arc::new(identity)), peer: None, sharer: None, address: OnceLock::new() }
    }

    #[test]
    fn the_default_namespace_is_the_only_granted_one_or_the_one_named_default() {
        assert_eq!(caller(&[("viewer", &["team"])]).default_namespace(), Some(&namespace("team")));
        assert_eq!(caller(&[("viewer", &["*"])]).default_namespace(), Some(&Namespace::default()));
        assert_eq!(caller(&[("viewer", &["a", "default"])]).default_namespace(), Some(&Namespace::default()));
        assert_eq!(caller(&[("viewer", &["a"]), ("submitter", &["a"])]).default_namespace(), Some(&namespace("a")));
        assert_eq!(caller(&[("viewer", &["a", "b"])]).default_namespace(), None);
    }

    #[test]
    fn a_filter_is_limited_to_the_namespaces_of_the_role() {
        let mixed = caller(&[("viewer", &["a"]), ("operator", &["b", "c"])]);
        let names = |names: &[&str]| names.iter().map(|name| namespace(name)).collect::<Vec<_>>();
        assert_eq!(mixed.limit_namespaces(Role::Viewer, Vec::new()).unwrap(), names(&["a", "b", "c"]));
        assert_eq!(mixed.limit_namespaces(Role::Operator, Vec::new()).unwrap(), names(&["b", "c"]));
        assert_eq!(mixed.limit_namespaces(Role::Operator, names(&["c"])).unwrap(), names(&["c"]));
        let denied = mixed.limit_namespaces(Role::Operator, names(&["b", "a"])).unwrap_err();
        assert_eq!(denied.scope, RoleScope::Namespace(namespace("a")));
        assert!(mixed.limit_namespaces(Role::Admin, Vec::new()).is_err(), "an empty list would mean all namespaces");
        let all = caller(&[("viewer", &["*"])]);
        assert_eq!(all.limit_namespaces(Role::Viewer, Vec::new()).unwrap(), Vec::new());
        assert!(all.limit_namespaces(Role::Operator, Vec::new()).is_err());
    }

    #[test]
    fn a_worker_offers_the_handlers_of_its_grants_in_pools_of_its_namespaces() {
        let of = |handlers: &[&str], names: &[&str]| {
            let handlers: Vec<_> = handlers.iter().map(|name| (*name).to_owned()).collect();
            grant(&("worker", names)).for_handlers(&handlers).unwrap()
        };
        let pool = |names: &[&str]| {
            let namespaces = names.iter().map(|name| namespace(name)).collect();
            PoolSpec { namespaces, ..PoolSpec::with_defaults(PoolName::parse("far").unwrap(), 1) }
        };
        let offers = |caller: &Caller, name: &str, names: &[&str]| {
            caller.may_offer(&HandlerName::parse(name).unwrap(), &pool(names)).map_err(|denied| denied.to_string())
        };
        let mixed =
            caller_with(vec![of(&["resize"], &["*"]), of(&["thumb", "x"], &["a", "*"]), of(&["y"], &["a", "b"])]);
        assert!(["resize", "thumb", "x"].into_iter().all(|name| offers(&mixed, name, &[]).is_ok()));
        assert!(["resize", "y"].into_iter().all(|name| offers(&mixed, name, &["b", "a"]).is_ok()));
        let denied =
            "permission denied for key:x: requires role worker in all namespaces for handler `y` in pool `far`";
        assert_eq!(offers(&mixed, "y", &[]).unwrap_err(), denied);
        let denied = "permission denied for key:x: requires role worker in namespace `c` for handler `y` in pool `far`";
        assert_eq!(offers(&mixed, "y", &["a", "c"]).unwrap_err(), denied);
        assert!(offers(&mixed, "other", &["a"]).is_err());
        assert!(offers(&caller_with(vec![of(&[], &["*"])]), "other", &[]).is_ok());
        assert!(offers(&caller(&[("admin", &["*"])]), "other", &[]).is_ok());
        assert!(offers(&caller(&[("operator", &["*"])]), "other", &["a"]).is_err());
        let all = CallerExtractor::new(false).extract(&Request::new(())).unwrap();
        assert!(offers(&all, "other", &[]).is_ok(), "without authentication everything is allowed");
    }

    #[test]
    fn a_request_that_bypassed_the_authentication_layer_is_refused() {
        assert!(CallerExtractor::new(true).extract(&Request::new(())).is_err());
        assert!(!CallerExtractor::new(false).extract(&Request::new(())).unwrap().is_authenticated());
    }

    #[test]
    fn a_task_that_is_foreign_by_its_id_is_not_looked_up() {
        let team = caller(&[("submitter", &["team"])]);
        let looks_up = |caller: &Caller, id| caller.may_see(Role::Operator, &TaskId::parse(id).unwrap());
        assert!(!looks_up(&team, "other/x") && !looks_up(&team, "x"));
        // It gets PERMISSION_DENIED, because it may see the task.
        assert!(looks_up(&team, "team/x"));
        // Only the task itself says.
        assert!(looks_up(&team, "01890a5d-ac96-774b-bcce-b302099a8057"));
        assert!(looks_up(&caller(&[("viewer", &["*"])]), "other/x"));
    }

    #[test]
    fn a_task_id_without_a_namespace_is_searched_in_the_default_namespace() {
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
