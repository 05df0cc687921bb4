//! A running attempt and other fixtures for the tests of runners.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::process::Host;
use super::{Outcome, OutputBuffer, ResultMemory, Run, RunReport, Runner, StopSignal};
use crate::artifacts::{ArtifactStore, AttemptArtifacts};
use crate::model::limits::PayloadLimit;
use crate::model::{Failure, MemoryAccount, OutputStream, TaskId, TaskOptions, TaskSpec};

/// Longer than any step of a test takes, even on a busy machine.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// An attempt that nobody watches.
pub(super) fn run(payload: impl Into<Bytes>) -> Run {
    Run {
        task: TaskId::parse("task-7").unwrap(),
        options: Arc::new(TaskOptions::sample()),
        attempt: 2,
        payload: payload.into(),
        args: Box::default(),
        parents: None,
        trace: None,
        stop: Arc::default(),
        output: Arc::default(),
        progress: Arc::new(|_, _| {}),
        result_memory: ResultMemory::new(MemoryAccount::new(|_| 0)),
        artifacts: artifacts(Path::new("")),
    }
}

/// The artifacts of an attempt, in a store in this directory.
pub(super) fn artifacts(directory: &Path) -> AttemptArtifacts {
    let store = ArtifactStore::new(crate::artifacts::Options::sample(directory));
    let (id, options) = (TaskId::parse("task-7").unwrap(), Arc::new(TaskOptions::sample()));
    AttemptArtifacts::new(&store, Arc::new(TaskSpec { id, options, payload: Box::default(), extras: None }), 7)
}

/// A running attempt on a separate thread, as in a pool of threads.
pub(super) struct Attempt {
    pub(super) stop: Arc<StopSignal>,
    pub(super) output: Arc<OutputBuffer>,
    pub(super) progress: Arc<Mutex<Vec<f32>>>,
    report: JoinHandle<RunReport>,
}

impl Attempt {
    pub(super) fn start(runner: &Arc<dyn Runner>, payload: impl Into<Bytes>) -> Self {
        Self::start_with(runner, payload, &[], Arc::default())
    }

    /// With results of up to 4 MiB.
    pub(super) fn start_large(runner: &Arc<dyn Runner>, payload: impl Into<Bytes>, account: &MemoryAccount) -> Self {
        let result_memory = ResultMemory::new(account.clone()).with_limit(PayloadLimit(4 << 20));
        Self::start_run(runner, Run { result_memory, ..run(payload) })
    }

    pub(super) fn start_with(
        runner: &Arc<dyn Runner>,
        payload: impl Into<Bytes>,
        args: &[&str],
        stop: Arc<StopSignal>,
    ) -> Self {
        let args = args.iter().map(|arg| (*arg).into()).collect();
        Self::start_run(runner, Run { args, stop, ..run(payload) })
    }

    pub(super) fn start_run(runner: &Arc<dyn Runner>, run: Run) -> Self {
        let (runner, output) = (Arc::clone(runner), Arc::<OutputBuffer>::default());
        let progress = Arc::<Mutex<Vec<f32>>>::default();
        let reports = Arc::clone(&progress);
        let stop = Arc::clone(&run.stop);
        let run = Run {
            output: Arc::clone(&output),
            progress: Arc::new(move |fraction, _| reports.lock().push(fraction)),
            ..run
        };
        let runtime = Handle::current();
        let report = tokio::task::spawn_blocking(move || runtime.block_on(runner.run(run)));
        Self { stop, output, progress, report }
    }

    /// Waits until the standard output contains the text, and returns all of it.
    pub(super) async fn wait_for_output(&self, text: &str) -> String {
        let mut seen = 0;
        while self.output.changed(seen).await {
            seen = self.output.total();
            let written = String::from_utf8(self.output.read(OutputStream::Stdout, 0).data).unwrap();
            if written.contains(text) {
                return written;
            }
        }
        panic!("the output ended without {text:?}");
    }

    pub(super) async fn ends_within(&mut self, time: Duration) -> bool {
        timeout(time, &mut self.report).await.is_ok()
    }

    pub(super) async fn report(self) -> RunReport {
        timeout(TIMEOUT, self.report).await.expect("the attempt ends").expect("the runner does not panic")
    }

    pub(super) async fn outcome(self) -> Outcome {
        self.report().await.outcome
    }

    pub(super) async fn failure(self) -> Failure {
        match self.outcome().await {
            Outcome::Failed(failure) => failure,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    pub(super) async fn result(self) -> Bytes {
        match self.outcome().await {
            Outcome::Completed(result) => result.data,
            other => panic!("expected a result, got {other:?}"),
        }
    }
}

/// A host whose supervisor is this test program; see the test `__supervise`.
pub(super) fn process_host(directory: &Path) -> Arc<Host> {
    let exe = std::env::current_exe().unwrap();
    Arc::new(Host::new(directory, "test", Some(&exe)).unwrap())
}
