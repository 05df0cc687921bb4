//! Advances the epoch of the engine while guests run, so that each of them asks whether it has to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Time after which a running guest notices a request to stop, at most, and the time between two checks.
pub(super) const INTERVAL: Duration = Duration::from_millis(2);

/// The thread `wasm-epoch`. It waits when no guest has run for an interval, and ends when this is dropped.
pub(super) struct Ticker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    guests: usize,
    /// Since the last tick. Short guests that follow each other do not have to wake the thread each time.
    has_run: bool,
    has_ended: bool,
}

/// A guest that runs until this is dropped.
pub(super) struct Running<'a>(&'a Shared);

impl Ticker {
    pub(super) fn start(engine: &wasmtime::Engine) -> io::Result<Self> {
        let (shared, engine) = (Arc::<Shared>::default(), engine.clone());
        let ticker = Self { shared: Arc::clone(&shared) };
        let run = move || {
            while shared.wait_for_guests() {
                std::thread::sleep(INTERVAL);
                engine.increment_epoch();
            }
        };
        std::thread::Builder::new().name("wasm-epoch".to_owned()).spawn(run)?;
        Ok(ticker)
    }

    pub(super) fn guest(&self) -> Running<'_> {
        let mut state = self.shared.state.lock();
        state.guests += 1;
        let wakes = !std::mem::replace(&mut state.has_run, true) && state.guests == 1;
        drop(state);
        if wakes {
            self.shared.changed.notify_one();
        }
        Running(&self.shared)
    }
}

impl Shared {
    /// Returns false when the ticker was dropped.
    fn wait_for_guests(&self) -> bool {
        let mut state = self.state.lock();
        while state.guests == 0 && !state.has_run && !state.has_ended {
            self.changed.wait(&mut state);
        }
        state.has_run = false;
        !state.has_ended
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.lock().guests -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.state.lock().has_ended = true;
        self.shared.changed.notify_one();
    }
}
