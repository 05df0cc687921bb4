//! The state of one guest, and what it is granted.

use std::time::Duration;

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, WasiCtxView, WasiView};

use super::limits::GuestLimits;
use crate::model::{Clock, SystemClock};

/// Resources of the host that a component may have at a time, such as streams and timers.
const RESOURCES_MAX: usize = 10_000;
/// Random bytes for one call of a component, which the host allocates.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

pub(super) struct GuestState {
    /// Serves both previews.
    pub(super) wasi: WasiP1Ctx,
    pub(super) limits: GuestLimits,
}

impl GuestState {
    /// Without files, network, arguments and environment, unless the builder has them.
    pub(super) fn new(mut builder: WasiCtxBuilder, limits: GuestLimits, clock: bool) -> Self {
        if !clock {
            builder.wall_clock(StoppedWallClock::now()).monotonic_clock(StoppedMonotonicClock);
        }
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(RANDOM_BYTES_MAX);
        let mut wasi = builder.build_p1();
        wasi.ctx().table.set_max_capacity(RESOURCES_MAX);
        Self { wasi, limits }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Shows the time when the guest was started: with a real clock, a guest can measure what other work of the server does.
struct StoppedWallClock(Duration);

impl StoppedWallClock {
    fn now() -> Self {
        Self(Duration::from_micros(SystemClock.now().as_micros()))
    }
}

impl HostWallClock for StoppedWallClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

struct StoppedMonotonicClock;

impl HostMonotonicClock for StoppedMonotonicClock {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    /// Not 0, which some runtimes take for an error.
    fn now(&self) -> u64 {
        1
    }
}
