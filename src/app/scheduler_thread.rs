//! The thread of the scheduler's loop, separate from the runtime so that a busy runtime cannot delay it.

use tokio::runtime;
use tokio::sync::oneshot;

use super::error::{StartError, failed_to};
use crate::scheduler::Service;

/// The receiver completes when the thread has ended, also after a panic.
pub(super) fn spawn(service: Service, runtime: runtime::Handle) -> Result<oneshot::Receiver<()>, StartError> {
    let (ended, wait) = oneshot::channel();
    let thread = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || {
        service.run(&runtime);
        // Nothing to do if the receiver is gone.
        let _ = ended.send(());
    });
    thread.map_err(failed_to("start the scheduler"))?;
    Ok(wait)
}
