//! The parents of a task, in submissions and in responses.

use crate::model::{Dependencies, Namespace, OnParentFailure, Parent, TaskId, limits};
use crate::proto::v1;
use crate::scheduler::UnfinishedParents;

use super::invalid_fields::{InvalidFields, MessagePath};
use super::numbers::to_i32;

/// Parses the parents of a submission in this namespace. `places`: number of tasks of the call, if they can name each other by
/// their places. `None` if there are no parents.
pub(super) fn dependencies(
    invalid: &mut InvalidFields,
    path: MessagePath,
    wire: Option<&v1::Dependencies>,
    namespace: Option<&Namespace>,
    places: usize,
) -> Option<Dependencies> {
    let v1::Dependencies { task_ids, batch_indices, on_parent_failure } = wire?;
    // A namespace that is not valid is refused already.
    let namespace = namespace?;
    let on_parent_failure = rule(invalid, path, *on_parent_failure);
    let count = task_ids.len() + batch_indices.len();
    invalid.check_length(path.field("dependencies"), count, limits::PARENTS_MAX, "parents");
    if count == 0 || count > limits::PARENTS_MAX {
        return None;
    }
    let mut parents = Vec::with_capacity(count);
    for (at, text) in task_ids.iter().enumerate() {
        let field = format_args!("{path}dependencies.task_ids[{at}]");
        let candidates = invalid.parsed(field, TaskId::candidates(namespace, text));
        let id = candidates.and_then(|candidates| candidates.into_iter().next());
        parents.extend(id.map(|id| Parent { id, place: None }));
    }
    for (at, index) in batch_indices.iter().enumerate() {
        let place = u32::try_from(*index).ok().filter(|place| (*place as usize) < places);
        if place.is_none() {
            let field = format_args!("{path}dependencies.batch_indices[{at}]");
            match places.checked_sub(1) {
                Some(last) => invalid.add(field, format_args!("is {index}, must be from 0 to {last}")),
                None => invalid.add(field, format_args!("is {index}, but only BatchSubmitTasks has such places")),
            }
        }
        parents.extend(place.map(Parent::at));
    }
    Some(Dependencies { parents: parents.into(), on_parent_failure })
}

fn rule(invalid: &mut InvalidFields, path: MessagePath, number: i32) -> OnParentFailure {
    match v1::OnParentFailure::try_from(number) {
        Ok(v1::OnParentFailure::Unspecified | v1::OnParentFailure::Fail) => OnParentFailure::Fail,
        Ok(v1::OnParentFailure::Run) => OnParentFailure::Run,
        Ok(v1::OnParentFailure::Cancel) => OnParentFailure::Cancel,
        Err(_) => {
            let field = path.field("dependencies.on_parent_failure");
            invalid.add(field, format_args!("is {number}, must be from 0 to 3"));
            OnParentFailure::Fail
        }
    }
}

/// Converts the parents of a task; with their IDs if `with_ids`.
pub(super) fn task_dependencies(
    dependencies: &Dependencies,
    with_ids: bool,
    unfinished: Option<UnfinishedParents>,
) -> v1::TaskDependencies {
    let ids = dependencies.parents.iter().filter(|_| with_ids).map(|parent| parent.id.to_string());
    let UnfinishedParents { count, ids: unfinished_ids } = unfinished.unwrap_or_default();
    v1::TaskDependencies {
        parent_ids: ids.collect(),
        parents: to_i32(dependencies.parents.len()),
        on_parent_failure: i32::from(dependencies.on_parent_failure as u8),
        unfinished_parents: to_i32(count),
        unfinished_parent_ids: unfinished_ids.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &v1::Dependencies, places: usize) -> Result<Option<Dependencies>, InvalidFields> {
        let mut invalid = InvalidFields::default();
        let team = Namespace::parse("team").unwrap();
        let parsed = dependencies(&mut invalid, MessagePath::BatchItem(3), Some(wire), Some(&team), places);
        invalid.check().map(|()| parsed)
    }

    #[test]
    fn parents_are_named_by_id_in_the_namespace_of_the_task_or_by_place() {
        assert_eq!(parse(&v1::Dependencies::default(), 5).unwrap(), None);
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        let wire = v1::Dependencies {
            task_ids: vec!["mine".to_owned(), "team/mine".to_owned(), uuid.to_owned()],
            batch_indices: vec![4],
            on_parent_failure: v1::OnParentFailure::Run.into(),
        };
        let Dependencies { parents, on_parent_failure } = parse(&wire, 5).unwrap().unwrap();
        let ids: Vec<_> = parents[..3].iter().map(|parent| parent.id.to_string()).collect();
        assert_eq!(ids, ["team/mine", "team/mine", uuid]);
        assert_eq!((parents[3].place, on_parent_failure), (Some(4), OnParentFailure::Run));
    }

    #[test]
    fn what_names_no_task_is_refused_with_field_and_value() {
        let wire = v1::Dependencies {
            task_ids: vec!["mine".to_owned(), "a b".to_owned()],
            batch_indices: vec![0, 5, -1],
            on_parent_failure: 4,
        };
        let refused = parse(&wire, 5).unwrap_err();
        let field = |name: &str| format!("tasks[3].dependencies.{name}");
        let fields = ["on_parent_failure", "task_ids[1]", "batch_indices[1]", "batch_indices[2]"];
        assert_eq!(refused.paths(), fields.map(field));
        let alone = parse(&v1::Dependencies { batch_indices: vec![0], ..Default::default() }, 0).unwrap_err();
        let expected = "`tasks[3].dependencies.batch_indices[0]` is 0, but only BatchSubmitTasks has such places";
        assert_eq!(alone.to_string(), expected);
        let many = vec!["a".to_owned(); limits::PARENTS_MAX + 1];
        let refused = parse(&v1::Dependencies { task_ids: many, ..Default::default() }, 0).unwrap_err();
        assert_eq!(refused.to_string(), "`tasks[3].dependencies` has 10001 parents, at most 10000 are allowed");
    }
}
