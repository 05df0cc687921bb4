//! Finding the parents of a submission: existing tasks, or others of the submission, in any order but not in a cycle.

use std::cell::OnceCell;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{Dependencies, Namespace, Parent, TaskId, TaskSpec};
use crate::scheduler::refusal::{BadField, ParentNotFound, Refusal};

use super::state::Core;
use super::submission::Accepted;

/// Tasks of a cycle that an error names.
const CYCLE_SHOWN_MAX: usize = 8;

/// The new tasks of a submission.
struct NewTasks<'a> {
    accepted: &'a [Accepted],
    /// By place.
    namespaces: Vec<Namespace>,
    /// Places of the new tasks, once a parent is named by its ID.
    by_id: OnceCell<HashMap<&'a TaskId, usize>>,
    /// Whether a path in the request has the place of the task.
    is_batch: bool,
}

impl NewTasks<'_> {
    fn path(&self, place: usize) -> String {
        if self.is_batch { format!("tasks[{place}].") } else { String::new() }
    }

    fn is_new(&self, place: usize) -> bool {
        self.accepted.get(place).is_some_and(|accepted| !accepted.duplicate)
    }

    fn place_of(&self, id: &TaskId) -> Option<usize> {
        let places = || self.accepted.iter().enumerate().filter(|(_, accepted)| !accepted.duplicate);
        let by_id = || places().map(|(place, accepted)| (&accepted.id, place)).collect();
        self.by_id.get_or_init(by_id).get(id).copied()
    }
}

impl Core {
    /// Finds the parents of the new tasks, sets the IDs of those that are named by their places, and returns the order in which
    /// the tasks are added: each after its parents, otherwise that of the submission. `None`: no new task has parents.
    ///
    /// # Errors
    /// [`ParentNotFound`], and [`BadField`] for a cycle.
    pub(super) fn resolve_parents(
        &self,
        specs: &mut [TaskSpec],
        accepted: &[Accepted],
        is_batch: bool,
    ) -> Result<Option<Vec<usize>>, Refusal> {
        let is_new = |place: usize| !accepted[place].duplicate;
        if !specs.iter().enumerate().any(|(place, spec)| is_new(place) && spec.extras().dependencies.is_some()) {
            return Ok(None);
        }
        let namespaces = specs.iter().map(|spec| spec.options.namespace.clone()).collect();
        let new_tasks = NewTasks { accepted, namespaces, by_id: OnceCell::new(), is_batch };
        // Of each task, the places of its parents in the submission.
        let mut inside: Vec<Vec<usize>> = vec![Vec::new(); specs.len()];
        for (place, spec) in specs.iter_mut().enumerate().filter(|(place, _)| is_new(*place)) {
            let namespace = &spec.options.namespace;
            let Some(extras) = spec.extras.as_mut() else { continue };
            let Some(dependencies) = &mut extras.dependencies else { continue };
            let dependencies = Arc::make_mut(dependencies);
            if let Some(ended) = &extras.retry_of {
                self.resolve_again(namespace, ended, dependencies)?;
            } else {
                inside[place] = self.resolve(&new_tasks, place, namespace, dependencies)?;
            }
        }
        in_order(&inside).map(Some).map_err(|cycle| cycle_refused(&new_tasks, &cycle).into())
    }

    /// Finds the parents of the retry of a task: those of the task, or their newest retries.
    fn resolve_again(
        &self,
        namespace: &Namespace,
        ended: &TaskId,
        dependencies: &mut Dependencies,
    ) -> Result<(), ParentNotFound> {
        for parent in &mut dependencies.parents {
            let id = self.retries.newest_of(&parent.id);
            if self.namespace_of(id) != Some(namespace) {
                let value = format!("`{ended}`, whose parent is `{id}`");
                let (field, namespace) = ("task_id".to_owned(), namespace.clone());
                return Err(ParentNotFound { field, value, namespace, parent: id.clone() });
            }
            *parent = Parent { id: id.clone(), place: None };
        }
        Ok(())
    }

    /// Finds the parents of one task. Returns the places of those in the submission.
    fn resolve(
        &self,
        new: &NewTasks<'_>,
        place: usize,
        namespace: &Namespace,
        dependencies: &mut Dependencies,
    ) -> Result<Vec<usize>, ParentNotFound> {
        let mut inside = Vec::new();
        for position in 0..dependencies.parents.len() {
            let parent = &dependencies.parents[position];
            let Some((id, found_inside)) = self.find_parent(new, namespace, parent) else {
                let id = named_id(new, parent);
                let value = match parent.place {
                    Some(place) => format!("{place}, the place of task `{id}`"),
                    None => format!("`{id}`"),
                };
                let field = format!("{}{}", new.path(place), dependencies.field(position));
                return Err(ParentNotFound { field, value, namespace: namespace.clone(), parent: id.clone() });
            };
            inside.extend(found_inside);
            dependencies.parents[position].id = id;
        }
        Ok(inside)
    }

    /// The ID of a parent, and its place if it is a new task of the submission.
    fn find_parent(
        &self,
        new: &NewTasks<'_>,
        namespace: &Namespace,
        parent: &Parent,
    ) -> Option<(TaskId, Option<usize>)> {
        let id = named_id(new, parent);
        let given = parent.place.and_then(|place| usize::try_from(place).ok()).filter(|place| new.is_new(*place));
        if given.is_none()
            && let Some(its) = self.namespace_of(id)
        {
            return (its == namespace).then(|| (id.clone(), None));
        }
        let place = given.or_else(|| new.place_of(id))?;
        (new.namespaces[place] == *namespace).then(|| (id.clone(), Some(place)))
    }

    fn namespace_of(&self, id: &TaskId) -> Option<&Namespace> {
        let task = self.tasks.get(self.tasks.find(id)?)?;
        Some(&task.spec.options.namespace)
    }
}

/// A task at a place that repeats an earlier submission has the ID of the first one.
fn named_id<'a>(new: &'a NewTasks<'_>, parent: &'a Parent) -> &'a TaskId {
    let at_place = parent.place.and_then(|place| new.accepted.get(usize::try_from(place).ok()?));
    at_place.map_or(&parent.id, |accepted| &accepted.id)
}

fn cycle_refused(new: &NewTasks<'_>, cycle: &[usize]) -> BadField {
    let first = cycle[0];
    let field = format!("{}dependencies", new.path(first));
    let shown = cycle.iter().take(CYCLE_SHOWN_MAX).map(|place| format!("tasks[{place}]"));
    let mut names: Vec<_> = shown.collect();
    if cycle.len() > CYCLE_SHOWN_MAX {
        names.push(format!("{} others", cycle.len() - CYCLE_SHOWN_MAX));
    }
    names.push(format!("tasks[{first}]"));
    let description = if new.is_batch {
        format!("form a cycle, in which each task waits for the next: {}", names.join(" -> "))
    } else {
        "contain the task itself".to_owned()
    };
    BadField { field, description }
}

/// An order in which each place comes after those in its list, or a cycle.
fn in_order(after: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Visit {
        None,
        Open,
        Done,
    }
    let mut visits = vec![Visit::None; after.len()];
    let mut order = Vec::with_capacity(after.len());
    // Places that wait for the next one, each with the number of those in its list that were visited.
    let mut path = Vec::new();
    for start in 0..after.len() {
        if visits[start] == Visit::None {
            visits[start] = Visit::Open;
            path.push((start, 0));
        }
        while let Some((place, visited)) = path.last_mut() {
            let Some(next) = after[*place].get(*visited).copied() else {
                visits[*place] = Visit::Done;
                order.push(*place);
                path.pop();
                continue;
            };
            *visited += 1;
            match visits[next] {
                Visit::None => {
                    visits[next] = Visit::Open;
                    path.push((next, 0));
                }
                Visit::Open => {
                    return Err(path.iter().map(|(place, _)| *place).skip_while(|place| *place != next).collect());
                }
                Visit::Done => {}
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_comes_after_those_it_waits_for_and_otherwise_in_order() {
        assert_eq!(in_order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        assert_eq!(in_order(&[vec![2], vec![0], vec![]]), Ok(vec![2, 0, 1]));
        assert_eq!(in_order(&[vec![1, 2, 1], vec![2], vec![], vec![0]]), Ok(vec![2, 1, 0, 3]));
    }

    #[test]
    fn a_cycle_is_found_without_what_leads_to_it() {
        assert_eq!(in_order(&[vec![0]]), Err(vec![0]));
        assert_eq!(in_order(&[vec![1], vec![3], vec![1], vec![2]]), Err(vec![1, 3, 2]));
    }

    #[test]
    fn a_chain_as_long_as_a_batch_needs_no_deep_stack() {
        let chain: Vec<Vec<usize>> = (1..=10_000).map(|next| if next < 10_000 { vec![next] } else { vec![] }).collect();
        assert_eq!(in_order(&chain).unwrap().first(), Some(&9_999));
    }
}
