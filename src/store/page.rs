//! One page of a task listing.

use crate::model::{Revision, Task};

/// Position in a listing: the page has tasks that were submitted before this revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor(pub u64);

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Newest submission first, without payloads.
    pub tasks: Vec<Task>,
    /// Start of the next page; `None` on the last page. A page can have fewer tasks than fit, even none.
    pub next: Option<PageCursor>,
    /// The revision whose state the page shows.
    pub revision: Revision,
}

/// Limits of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Maximum number of tasks; at least 1.
    pub rows: usize,
    /// Maximum size of all tasks together, about as encoded. The first task may exceed it.
    pub bytes: usize,
    /// Whether to include results.
    pub results: bool,
}

/// Collects tasks until the page is full.
pub(super) struct PageBuilder {
    page: Page,
    size: PageSize,
    bytes: usize,
    last: Option<u64>,
}

impl PageBuilder {
    pub(super) fn new(size: PageSize, revision: Revision) -> Self {
        Self { page: Page { revision, ..Page::default() }, size, bytes: 0, last: None }
    }

    /// Adds the task with the submission revision `seq`. Returns false, and sets the start of the next page,
    /// when the task does not fit.
    pub(super) fn push(&mut self, seq: u64, task: Task) -> bool {
        let bytes = approximate_bytes(&task);
        let tasks = &mut self.page.tasks;
        if tasks.len() >= self.size.rows || (!tasks.is_empty() && self.bytes + bytes > self.size.bytes) {
            self.page.next = self.last.map(PageCursor);
            return false;
        }
        self.bytes += bytes;
        tasks.push(task);
        self.last = Some(seq);
        true
    }

    /// Makes the next page start before a row, although more tasks might fit.
    pub(super) fn end_at(&mut self, row: u64) {
        self.page.next = Some(PageCursor(row));
    }

    pub(super) fn finish(self) -> Page {
        self.page
    }
}

/// About the encoded size of a task.
pub(super) fn approximate_bytes(task: &Task) -> usize {
    /// Numbers, times and short names.
    const FIXED: usize = 512;
    let (spec, options, status) = (&task.spec, &task.spec.options, &task.status);
    let labels = options.labels.iter().map(|(key, value)| key.len() + value.len() + 8);
    let args = spec.extras().args.iter().map(|arg| arg.len() + 8);
    let request = spec.extras().request_id().map_or(0, str::len);
    let failure = status.failure.as_deref().map_or(0, |failure| failure.message.len() + failure.detail.len());
    let result = status.result.as_ref().map_or(0, |result| result.data.len() + result.content_type.len());
    let texts = options.display_name.len() + options.submitted_by.len() + options.content_type.len() + request;
    FIXED + texts + labels.sum::<usize>() + args.sum::<usize>() + failure + spec.payload.len() + result
}
