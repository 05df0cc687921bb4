//! ListTasks: one page, small enough for clients with the usual message limit.

use prost::Message;
use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{filter, task};
use crate::api::status::into_status;
use crate::model::Role;
use crate::proto::v1;
use crate::scheduler::{Handle, Page, PageSize};

/// Maximum size of a page in bytes. Most clients refuse messages of more than 4 MiB.
const PAGE_BYTES_MAX: usize = 3 << 20;

/// Memory for reading and sending a page.
pub const BYTES_MAX: u64 = 2 * PAGE_BYTES_MAX as u64;

/// Returns one page. It has fewer tasks than requested if they would exceed [`PAGE_BYTES_MAX`].
pub async fn list(
    handle: &Handle,
    request: v1::ListTasksRequest,
    caller: &Caller,
) -> Result<v1::ListTasksResponse, Status> {
    let wire_filter = request.filter.unwrap_or_default();
    let rows = filter::page_size(request.page_size).map_err(into_status)?;
    let cursor = filter::page_cursor(&request.page_token, &wire_filter).map_err(into_status)?;
    let filter = caller.filter(Role::Viewer, Some(wire_filter.clone()))?;
    let include = task::Include { payload: false, result: request.include_results };
    let size = PageSize { rows, bytes: PAGE_BYTES_MAX, results: request.include_results };
    let mut page = handle.list(filter.clone(), size, cursor).await.map_err(into_status)?;
    let mut tasks = convert(&mut page, include);
    let fitting = fitting(tasks.iter().map(Message::encoded_len));
    if fitting < tasks.len() {
        // The store estimates the size of a row. Only the store knows the cursor of a row, so the page is read again
        // with the number of rows that fit.
        page = handle.list(filter, PageSize { rows: fitting, ..size }, cursor).await.map_err(into_status)?;
        tasks = convert(&mut page, include);
    }
    let next_page_token = filter::page_token(page.next, &wire_filter);
    let resume_token = handle.resume_token(page.revision).encode();
    Ok(v1::ListTasksResponse { tasks, next_page_token, revision: page.revision.0, resume_token })
}

fn convert(page: &mut Page, include: task::Include) -> Vec<v1::Task> {
    std::mem::take(&mut page.tasks).into_iter().map(|row| task::task(row, include)).collect()
}

/// Returns how many of the first rows fit into a page; at least one.
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
    fn a_page_is_cut_at_its_size_limit() {
        assert_eq!(fitting([1, 2, 3].into_iter()), 3);
        assert_eq!(fitting(std::iter::repeat_n(1 << 20, 10)), 3);
        assert_eq!(fitting([PAGE_BYTES_MAX + 1, 1].into_iter()), 1);
    }
}
