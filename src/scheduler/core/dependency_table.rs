//! Which tasks unfinished tasks depend on, and which of these wait. `dependencies` has what follows from it.
//!
//! An unfinished task is a child of each of its parents. A child that ends before a parent leaves an entry behind in the
//! list of that parent; such entries are skipped, and compaction keeps their number within a constant factor of the live ones.

use std::collections::VecDeque;
use std::vec;

use hashbrown::HashMap;

use crate::model::{Hold, Revision};

use super::table::TaskTable;

/// Entries of ended children that a list may have in addition to as many as live ones.
const STALE_MAX: usize = 64;

/// A task that waits for parents. The entry is stale if the task does not, or the entry of the table is that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub index: u32,
    pub submission: Revision,
}

impl Child {
    pub fn waits(self, tasks: &TaskTable) -> bool {
        let task = tasks.get(self.index).filter(|task| task.submission == self.submission);
        task.is_some_and(|task| task.holds.contains(Hold::Parents))
    }
}

#[derive(Debug, Default)]
pub(super) struct DependencyTable {
    /// The tasks on which unfinished tasks depend, by index.
    parents: HashMap<u32, Children>,
    /// Number of parents whose end a waiting task has to take notice of, by its index.
    left: HashMap<u32, u32>,
    /// Parents that have ended, with children that have to take notice.
    ended: VecDeque<(u32, vec::IntoIter<Child>)>,
}

#[derive(Debug, Default)]
struct Children {
    unfinished: usize,
    /// Those that wait for the end of the parent. Empty once it has ended.
    waiting: Vec<Child>,
}

impl DependencyTable {
    /// Adds a child of a parent, which waits for its end if `is_awaited`. Returns whether it is the first one.
    pub fn add_child(&mut self, parent: u32, child: Child, is_awaited: bool) -> bool {
        let children = self.parents.entry(parent).or_default();
        children.unfinished += 1;
        if is_awaited {
            *self.left.entry(child.index).or_default() += 1;
            children.waiting.push(child);
        }
        children.unfinished == 1
    }

    /// A parent has ended. Returns whether it has children.
    pub fn end_parent(&mut self, parent: u32) -> bool {
        let Some(children) = self.parents.get_mut(&parent) else { return false };
        let waiting = std::mem::take(&mut children.waiting);
        if !waiting.is_empty() {
            self.ended.push_back((parent, waiting.into_iter()));
        }
        true
    }

    /// The next child that has to take notice of the end of a parent.
    pub fn pop_ended(&mut self) -> Option<(u32, Child)> {
        loop {
            let (parent, children) = self.ended.front_mut()?;
            if let Some(child) = children.next() {
                return Some((*parent, child));
            }
            self.ended.pop_front();
        }
    }

    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// A child has taken notice of the end of one of its parents. Returns whether that was the last one.
    pub fn note_parent(&mut self, child: u32) -> bool {
        let Some(left) = self.left.get_mut(&child) else { return false };
        *left -= 1;
        let is_last = *left == 0;
        if is_last {
            self.left.remove(&child);
        }
        is_last
    }

    /// Number of parents that a task waits for.
    pub fn left(&self, child: u32) -> u32 {
        self.left.get(&child).copied().unwrap_or(0)
    }

    /// A child has ended and waits for no parent any more.
    pub fn end_wait(&mut self, child: u32) {
        self.left.remove(&child);
    }

    /// A child of a parent has ended. Returns whether it was the last one.
    pub fn remove_child(&mut self, parent: u32, tasks: &TaskTable) -> bool {
        let Some(children) = self.parents.get_mut(&parent) else { return false };
        children.unfinished -= 1;
        if children.unfinished == 0 {
            self.parents.remove(&parent);
            return true;
        }
        if children.waiting.len() > 2 * children.unfinished + STALE_MAX {
            children.waiting.retain(|child| child.waits(tasks));
        }
        false
    }

    /// Children of each parent, and how many of them wait, without stale ones.
    #[cfg(test)]
    pub fn counts(&self, tasks: &TaskTable) -> std::collections::BTreeMap<u32, (usize, usize)> {
        let live = |children: &Children| children.waiting.iter().filter(|child| child.waits(tasks)).count();
        let counts = self.parents.iter().map(|(parent, children)| {
            assert!(children.waiting.len() <= 2 * children.unfinished + STALE_MAX + 1, "stale children are bounded");
            (*parent, (children.unfinished, live(children)))
        });
        counts.collect()
    }

    #[cfg(test)]
    pub fn waiting(&self) -> std::collections::BTreeMap<u32, u32> {
        self.left.iter().map(|(child, left)| (*child, *left)).collect()
    }
}
