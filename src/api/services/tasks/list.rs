//! ListTasks: one page, no larger than clients accept.

use prost::Message;
use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{filter, task};
use crate::model::{Role, TaskFilter};
use crate::proto::v1;
use crate::scheduler::{Handle, Page, PageCursor, PageSize};

use super::refused;

/// Bytes of one page; most clients refuse a message of more than 4 MiB.
const PAGE_BYTES_MAX: usize = 3 << 20;

/// One page. It has fewer rows than asked for where more would be too large.
pub async fn list(
    handle: &Handle,
    request: v1::ListTasksRequest,
    caller: &Caller,
) -> Result<v1::ListTasksResponse, Status> {
    let wire_filter = request.filter.unwrap_or_default();
    let size = filter::page_size(request.page_size).map_err(refused)?;
    let cursor = filter::page_cursor(&request.page_token, &wire_filter).map_err(refused)?;
    let parsed = caller.filter(Role::Viewer, Some(wire_filter.clone()))?;
    let view = task::View { payload: false, result: request.include_results };
    let size = PageSize { rows: size, bytes: PAGE_BYTES_MAX, results: request.include_results };
    let mut page = page(handle, &parsed, size, cursor).await?;
    let mut tasks = rows(&mut page, view);
    let fitting = fitting(tasks.iter().map(Message::encoded_len));
    if fitting < tasks.len() {
        // The store's sizes are not quite those of the wire. Only it knows the position of a row, so it is
        // asked for just as many.
        page = self::page(handle, &parsed, PageSize { rows: fitting, ..size }, cursor).await?;
        tasks = rows(&mut page, view);
    }
    let next_page_token = filter::page_token(page.next, &wire_filter);
    Ok(v1::ListTasksResponse { tasks, next_page_token, revision: page.revision.0 })
}

async fn page(
    handle: &Handle,
    filter: &TaskFilter,
    size: PageSize,
    cursor: Option<PageCursor>,
) -> Result<Page, Status> {
    handle.list(filter.clone(), size, cursor).await.map_err(refused)
}

fn rows(page: &mut Page, view: task::View) -> Vec<v1::Task> {
    std::mem::take(&mut page.tasks).into_iter().map(|row| task::task(row, view)).collect()
}

/// How many of the first rows fit into a page; at least one.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut total = 0_usize;
    let fit = sizes.take_while(|size| {
        total = total.saturating_add(*size);
        total <= PAGE_BYTES_MAX
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_is_too_large_for_clients() {
        assert_eq!(fitting([1, 2, 3].into_iter()), 3);
        assert_eq!(fitting(std::iter::repeat_n(1 << 20, 10)), 3);
        assert_eq!(fitting([PAGE_BYTES_MAX + 1, 1].into_iter()), 1);
    }
}
