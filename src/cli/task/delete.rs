//! `lineshaft task delete`.

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit};
use crate::cli::output;
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::model::limits;
use crate::proto::v1;

use super::bulk;

pub async fn run(mut filter: v1::TaskFilter, dry_run: bool, client: Client, printer: Printer) -> CommandResult {
    let ids = std::mem::take(&mut filter.task_ids);
    let mut total = v1::DeleteTasksResponse::default();
    // Without IDs there is one call, for all that match.
    let parts = if ids.is_empty() {
        vec![Vec::new()]
    } else {
        ids.chunks(limits::FILTER_VALUES_MAX).map(<[_]>::to_vec).collect()
    };
    let progress = Progress::new(None, "deleted");
    for task_ids in parts {
        let filter = Some(v1::TaskFilter { task_ids, ..filter.clone() });
        let request = v1::DeleteTasksRequest { filter, validate_only: dry_run };
        let response = client.tasks().delete_tasks(request).await?.into_inner();
        progress.add(response.deleted.try_into().unwrap_or(0));
        total.deleted += response.deleted;
        total.revision = response.revision;
    }
    drop(progress);
    if dry_run {
        printer.print(&total, |total| bulk::preview(total.deleted));
        return Ok(Exit::Success);
    }
    printer.print(&total, |total| format!("{} deleted", total.deleted));
    let left = i64::try_from(ids.len()).unwrap_or(i64::MAX) - total.deleted;
    if left > 0 {
        output::status(format_args!(
            "{left} of {} tasks were not deleted: they do not exist, have not ended, or do not match",
            ids.len()
        ));
        return Ok(Exit::Refused);
    }
    Ok(Exit::Success)
}
