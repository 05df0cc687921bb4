//! The thread of the scheduler's loop, separate from the runtime so that a busy runtime cannot delay it.

use tokio::runtime;
use tokio::sync::oneshot;

use super::error::{StartError, failed_to};
use crate::scheduler::Service;
use crate::telemetry::panics;

/// The receiver completes when the thread has ended. A panic ends the process.
pub(super) fn spawn(service: Service, runtime: runtime::Handle) -> Result<oneshot::Receiver<()>, StartError> {
    let (ended, wait) = oneshot::channel();
    let thread = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || {
        panics::mark_thread_essential();
        service.run(&runtime);
        // Nothing to do if the receiver is gone.
        let _ = ended.send(());
    });
    thread.map_err(failed_to("start the scheduler"))?;
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Clock, Timestamp};
    use crate::scheduler::{Options, Recovery};
    use crate::store;

    /// Panics on the scheduler's thread.
    struct BrokenClock;

    impl Clock for BrokenClock {
        fn now(&self) -> Timestamp {
            assert_ne!(std::thread::current().name(), Some("scheduler"), "the clock is broken");
            Timestamp::ZERO
        }
    }

    #[test]
    fn a_panic_of_the_scheduler_ends_the_process_with_a_log_line() {
        let (code, text) = panics::run_ignored_test("app::scheduler_thread::tests::the_scheduler_panics");
        assert_eq!(code, Some(panics::EXIT_CODE), "{text}");
        let line = text.lines().find(|line| line.contains("the server exits")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("\"thread\":\"scheduler\"") && line.contains("the clock is broken"), "{line}");
    }

    #[tokio::test]
    #[ignore = "ends the process; another test starts it"]
    async fn the_scheduler_panics() {
        panics::install_for_test();
        let options = Options::sample(Vec::new());
        let mut recovery = Recovery::new(options.core.clone());
        let (store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
        let runtime = runtime::Handle::current();
        let service = Service::start(options, store, recovery, Arc::default(), Arc::new(BrokenClock), &runtime);
        let ended = spawn(service.unwrap(), runtime).unwrap();
        let _ = ended.await;
    }
}
