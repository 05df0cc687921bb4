//! Health of the scheduler, the store and the projection, within a bounded time even if the loop hangs.

use std::time::Duration;

use super::handle::Handle;
use super::message::Request;
use super::refusal::Refusal;

/// How long the scheduler's loop may take to answer. Shorter than the timeouts of the callers.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentHealth {
    /// `scheduler`, `store`, `projection`.
    pub name: &'static str,
    pub healthy: bool,
    /// The fault, or a short status.
    pub detail: String,
}

impl Handle {
    /// Health of each component, after two seconds at most.
    pub async fn health(&self) -> Vec<ComponentHealth> {
        let fault = self.store_fault().await;
        let (healthy, detail) = match &fault {
            Ok(_) => (true, "responding".to_owned()),
            Err(reason) => (false, reason.clone()),
        };
        let scheduler = ComponentHealth { name: "scheduler", healthy, detail };
        let store = self.store_health(fault);
        let fault = self.inner.store.projection.fault().borrow().as_ref().map(ToString::to_string);
        let projection = ComponentHealth {
            name: "projection",
            healthy: fault.is_none(),
            detail: fault.unwrap_or_else(|| "writable".to_owned()),
        };
        vec![scheduler, store, projection]
    }

    /// From the answer of the loop, or from the last heartbeat if the loop does not answer.
    fn store_health(&self, fault: Result<Option<String>, String>) -> ComponentHealth {
        let kind = self.inner.store.kind;
        let (healthy, detail) = match fault {
            Ok(None) => (true, format!("{kind}: accepts writes")),
            Ok(Some(fault)) => (false, fault),
            Err(_) if self.inner.liveness.store_refuses() => {
                (false, format!("{kind}: refused writes at the last heartbeat of the scheduler"))
            }
            Err(_) => (true, format!("{kind}: accepted writes at the last heartbeat of the scheduler")),
        };
        ComponentHealth { name: "store", healthy, detail }
    }

    /// Why the store refuses writes, if it does; the error is why the loop did not answer.
    async fn store_fault(&self) -> Result<Option<String>, String> {
        self.query_loop(TIMEOUT, |reply| Request::StoreFault { reply }).await.map_err(|refusal| match refusal {
            Refusal::SchedulerUnresponsive(unresponsive) => unresponsive.description(),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::SystemClock;

    use crate::scheduler::service::{Options, Recovery, Service};
    use crate::store;
    use crate::telemetry::Telemetry;
    use crate::telemetry::liveness::{Component, NotReady, Phase, Watchdog};

    /// A service whose loop is not running.
    fn service(telemetry: &Telemetry) -> Service {
        let options = Options { telemetry: telemetry.clone(), ..Options::sample(Vec::new()) };
        let mut recovery = Recovery::new(options.core.clone());
        let (store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
        let runtime = tokio::runtime::Handle::current();
        Service::start(options, store, recovery, Arc::default(), Arc::new(SystemClock), &runtime).unwrap()
    }

    fn rows(health: &[ComponentHealth]) -> Vec<(&str, bool, &str)> {
        health.iter().map(|part| (part.name, part.healthy, &*part.detail)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_scheduler_that_does_not_answer_is_reported_after_the_timeout() {
        let telemetry = Telemetry::off();
        let service = service(&telemetry);
        let health = service.handle().health().await;
        assert_eq!(
            rows(&health),
            [
                ("scheduler", false, "has not answered for 2 s"),
                ("store", true, "memory: accepted writes at the last heartbeat of the scheduler"),
                ("projection", true, "writable"),
            ]
        );
        telemetry.liveness.heartbeat(true);
        let health = service.handle().health().await;
        assert_eq!(rows(&health)[1], ("store", false, "memory: refused writes at the last heartbeat of the scheduler"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stalled_scheduler_is_reported_without_a_query() {
        let telemetry = Telemetry::off();
        let service = service(&telemetry);
        telemetry.liveness.enter(Phase::Serving);
        telemetry.liveness.heartbeat(false);
        let runtime = tokio::runtime::Handle::current().metrics();
        let _watchdog = Watchdog::start(telemetry.liveness.clone(), runtime, Duration::from_millis(40)).unwrap();
        while !telemetry.liveness.not_ready_reasons().contains(&NotReady::Stalled(Component::Scheduler)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let health = service.handle().health().await;
        let (name, healthy, detail) = rows(&health)[0];
        assert!(name == "scheduler" && !healthy && detail.starts_with("has not made progress for"), "{detail}");
    }

    #[tokio::test]
    async fn a_running_scheduler_reports_its_health_until_it_has_drained() {
        let service = service(&Telemetry::off());
        let (handle, runtime) = (service.handle(), tokio::runtime::Handle::current());
        let thread = std::thread::Builder::new().name("scheduler".to_owned());
        let thread = thread.spawn(move || service.run(&runtime)).unwrap();
        let health = handle.health().await;
        assert!(health.iter().all(|part| part.healthy), "{health:?}");
        assert_eq!(rows(&health)[1].2, "memory: accepts writes");
        handle.drain(None);
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        let health = handle.health().await;
        let (name, healthy, detail) = rows(&health)[0];
        assert!(name == "scheduler" && !healthy && detail.contains("shutting down"), "{detail}");
    }
}
