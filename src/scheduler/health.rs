//! Whether each part does its work, told within a bounded time even when the scheduler's loop hangs.

use std::time::Duration;

use super::handle::Handle;
use super::message::Request;
use super::refusal::Refusal;

/// How long the scheduler's loop may take to say how it is: less than those wait who ask for it.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Whether one part does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentHealth {
    /// `scheduler`, `store`, `projection`.
    pub name: &'static str,
    /// Whether it does.
    pub healthy: bool,
    /// What is wrong, or how it is.
    pub detail: String,
}

impl Handle {
    /// Whether each part does its work; at the latest after two seconds.
    pub async fn health(&self) -> Vec<ComponentHealth> {
        let told = self.ask_loop().await;
        let (healthy, detail) = match &told {
            Ok(_) => (true, "answers".to_owned()),
            Err(silence) => (false, silence.clone()),
        };
        let scheduler = ComponentHealth { name: "scheduler", healthy, detail };
        let trouble = self.shared.store.projection.fault().borrow().as_ref().map(ToString::to_string);
        let projection = ComponentHealth {
            name: "projection",
            healthy: trouble.is_none(),
            detail: trouble.unwrap_or_else(|| "follows".to_owned()),
        };
        vec![scheduler, self.store_health(told), projection]
    }

    /// What the loop says of the store, when it says anything; otherwise what it last published.
    fn store_health(&self, told: Result<Option<String>, String>) -> ComponentHealth {
        let kind = self.shared.store.kind;
        let (healthy, detail) = match told {
            Ok(None) => (true, format!("{kind}: accepts writes")),
            Ok(Some(fault)) => (false, fault),
            Err(_) if self.shared.liveness.store_refuses() => {
                (false, format!("{kind}: refused writes when last heard of"))
            }
            Err(_) => (true, format!("{kind}: accepted writes when last heard of")),
        };
        ComponentHealth { name: "store", healthy, detail }
    }

    /// Why the store refuses writes, if it does; or why the loop cannot be asked.
    async fn ask_loop(&self) -> Result<Option<String>, String> {
        self.ask_within(WAIT_MAX, |reply| Request::StoreFault { reply }).await.map_err(|refusal| match refusal {
            Refusal::SchedulerUnresponsive(silent) => silent.how(),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{Catalog, SystemClock};
    use crate::scheduler::{CoreOptions, Options, Service};
    use crate::store;
    use crate::telemetry::Telemetry;
    use crate::telemetry::liveness::{Component, NotReady, Phase, Watchdog};

    /// A service whose loop does not run yet.
    fn service(telemetry: &Telemetry) -> Service {
        let core = CoreOptions {
            pools: Vec::new(),
            retention_count: 10,
            retention_age: Duration::from_hours(1),
            payload_bytes_max: 1 << 20,
            crashes_max: 3,
        };
        let options = Options {
            core,
            catalog: Arc::new(Catalog::default()),
            drain_limit: Duration::ZERO,
            watch_window: 1_000,
            telemetry: telemetry.clone(),
        };
        let (store, recovery) = store::open(&store::Options::default()).unwrap();
        let runtime = tokio::runtime::Handle::current();
        Service::start(options, store, recovery, Arc::default(), Arc::new(SystemClock), &runtime).unwrap()
    }

    fn rows(health: &[ComponentHealth]) -> Vec<(&str, bool, &str)> {
        health.iter().map(|part| (part.name, part.healthy, &*part.detail)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_scheduler_that_does_not_answer_is_said_to_be_silent_and_not_waited_for() {
        let telemetry = Telemetry::off();
        let service = service(&telemetry);
        let health = service.handle().health().await;
        assert_eq!(
            rows(&health),
            [
                ("scheduler", false, "has not answered for 2 s"),
                ("store", true, "memory: accepted writes when last heard of"),
                ("projection", true, "follows"),
            ]
        );
        telemetry.liveness.heartbeat(true);
        let health = service.handle().health().await;
        assert_eq!(rows(&health)[1], ("store", false, "memory: refused writes when last heard of"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scheduler_that_is_known_to_hang_is_not_even_asked() {
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
        assert!(name == "scheduler" && !healthy && detail.starts_with("has shown no sign of life for"), "{detail}");
    }

    #[tokio::test]
    async fn a_loop_that_runs_answers() {
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
