//! Finds the handler and the pool of a submission, and checks what they allow.

use crate::model::{
    Catalog, Coded, Details, ErrorCode, FieldViolation, HandlerName, HandlerSpec, Namespace, PoolKind, PoolName,
    PoolSpec, REMOTE_RUNNER,
};

use super::invalid_fields::{FieldPath, InvalidFields, MessagePath};

/// Bytes of a refused argument that the error shows.
const ARG_BYTES_SHOWN: usize = 128;

/// Why a submission cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    InvalidFields(#[from] InvalidFields),
    #[error("handler `{handler}` is not registered; run `lineshaft handler list`, or start a worker that offers it")]
    UnknownHandler { field: FieldPath, handler: HandlerName },
    #[error("pool `{pool}` is not configured; run `lineshaft pool list`")]
    UnknownPool { field: FieldPath, pool: PoolName },
    #[error("handler `{handler}` cannot run in pool `{pool}`: {reason}")]
    PoolNotAllowed { field: FieldPath, handler: HandlerName, pool: PoolName, reason: &'static str },
}

impl Coded for SubmitError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidFields(_) => ErrorCode::InvalidField,
            Self::UnknownHandler { .. } => ErrorCode::UnknownHandler,
            Self::UnknownPool { .. } => ErrorCode::UnknownPool,
            Self::PoolNotAllowed { .. } => ErrorCode::PoolNotAllowed,
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::InvalidFields(fields) => fields.details(),
            Self::UnknownHandler { field, handler } => Details {
                metadata: vec![("handler", handler.to_string()), ("field", field.to_string())],
                resource: Some(("handler", handler.to_string())),
                ..Details::default()
            },
            Self::UnknownPool { field, pool } => Details {
                metadata: vec![("pool", pool.to_string()), ("field", field.to_string())],
                resource: Some(("pool", pool.to_string())),
                ..Details::default()
            },
            Self::PoolNotAllowed { field, handler, pool, reason } => Details {
                metadata: vec![("handler", handler.to_string()), ("pool", pool.to_string())],
                violations: vec![FieldViolation {
                    field: field.to_string(),
                    description: format!("is `{pool}`, in which handler `{handler}` cannot run: {reason}"),
                }],
                ..Details::default()
            },
        }
    }
}

/// Finds the handler and the pool of a task; `pool`: the pool that the submission names.
pub(super) fn resolve<'a>(
    catalog: &'a Catalog,
    path: MessagePath,
    namespace: &Namespace,
    handler: &HandlerName,
    pool: Option<&PoolName>,
) -> Result<(&'a HandlerSpec, &'a PoolSpec), SubmitError> {
    let unknown_handler = || SubmitError::UnknownHandler { field: path.field("handler"), handler: handler.clone() };
    let handler = catalog.handlers.get(handler).ok_or_else(unknown_handler)?;
    let field = path.field("pool");
    let takes = |pool: &&PoolName| catalog.pools.get(*pool).is_some_and(|spec| spec.takes(namespace));
    let pool = pool.or_else(|| handler.pools().find(takes)).unwrap_or(&handler.pool);
    let unknown_pool = || SubmitError::UnknownPool { field, pool: pool.clone() };
    let spec = catalog.pools.get(pool).ok_or_else(unknown_pool)?;
    let not_allowed = |reason| {
        let (handler, pool) = (handler.name.clone(), pool.clone());
        Err(SubmitError::PoolNotAllowed { field, handler, pool, reason })
    };
    match (handler.runner == REMOTE_RUNNER, spec.kind == PoolKind::Remote) {
        (false, true) => return not_allowed("the handler runs in the server, and the pool has only remote workers"),
        (true, false) => return not_allowed("the handler runs in remote workers, and the pool has none"),
        (false, false) | (true, true) => {}
    }
    if !handler.runs_in(pool) {
        return not_allowed("the pool is not in `allowed_pools` of the handler");
    }
    if !spec.takes(namespace) {
        return not_allowed("the pool takes only tasks of other namespaces");
    }
    if handler.blocking && spec.kind == PoolKind::Async {
        return not_allowed("the handler blocks its worker, which a pool of kind `async` does not allow");
    }
    Ok((handler, spec))
}

/// Checks the arguments against what the handler's registration allows.
pub(super) fn check_handler_args(
    path: MessagePath,
    handler: &HandlerSpec,
    args: &[String],
) -> Result<(), InvalidFields> {
    let name = &handler.name;
    let Some(pattern) = &handler.arg_pattern else {
        if args.is_empty() {
            return Ok(());
        }
        let description = format_args!("has {} values, handler `{name}` accepts none", args.len());
        return Err(InvalidFields::one(path.field("args"), description));
    };
    let Some(index) = pattern.mismatch(args) else { return Ok(()) };
    let shown = &args[index][..args[index].floor_char_boundary(ARG_BYTES_SHOWN)];
    let pattern = pattern.as_str();
    let description = format_args!("is {shown:?}, must match `{pattern}` as a whole for handler `{name}`");
    Err(InvalidFields::one(format_args!("{path}args[{index}]"), description))
}
