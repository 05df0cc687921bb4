//! System calls that the standard library and rustix lack. All `unsafe` code of the runners is here.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a process ended and what it used, including the descendants that it waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    pub(super) cpu_time: Duration,
    /// Largest resident set size; `None` if it cannot be distinguished from the server's own.
    pub(super) peak_memory_bytes: Option<u64>,
}

/// Reaps a child. Unless `wait` is set, returns `WouldBlock` while the child is running.
#[expect(unsafe_code, reason = "only wait4 returns the usage of a single child")]
pub(super) fn reap(child: Pid, wait: bool) -> io::Result<Exit> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let options = if wait { 0 } else { libc::WNOHANG };
    let pid = child.as_raw_nonzero().get();
    let found = loop {
        // SAFETY: both pointers are to live locals of the right types.
        let found = unsafe { libc::wait4(pid, &raw mut status, options, usage.as_mut_ptr()) };
        if found >= 0 {
            break found;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    if found == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // SAFETY: zeroed is a valid rusage, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    Ok(Exit {
        status: ExitStatus::from_raw(status),
        cpu_time: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory_bytes: peak_above_own(usage.ru_maxrss),
    })
}

fn time(time: libc::timeval) -> Duration {
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), micros * 1_000)
}

/// A child starts with the server's memory, which the kernel counts into the child's peak. So the peak
/// describes the child only if it is above the server's own.
#[expect(unsafe_code, reason = "rustix has no getrusage")]
fn peak_above_own(peak_kib: libc::c_long) -> Option<u64> {
    let mut own = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live local of the right type; zeroed is a valid rusage.
    let own = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, own.as_mut_ptr());
        own.assume_init()
    };
    (peak_kib > own.ru_maxrss).then(|| u64::try_from(peak_kib).unwrap_or(0) * 1024)
}

/// Runs `prepare` in the child, between fork and exec.
///
/// `prepare` must make system calls only: no allocation, no locks. Callers pass rustix calls, which
/// are bare system calls on Linux.
#[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
pub(super) fn before_exec(command: &mut Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: as documented, `prepare` is async-signal-safe.
    unsafe { command.pre_exec(prepare) };
}

/// Registers a process handle with the runtime; it becomes readable when the process exits.
#[expect(unsafe_code, reason = "the caller must guarantee that the file stays open")]
pub(super) fn register_pidfd(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open file until it is dropped, and the `AsyncFd` owns it.
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    registered.map_err(Into::into)
}

/// Prevents children from inheriting the files that the server was started with. The standard library
/// already does so for the files that the server opens.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub(super) fn close_inherited_files_on_exec() -> io::Result<()> {
    // SAFETY: only sets a flag on open files; nothing is closed.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ignores the signals that stop a server; for the supervisor.
#[expect(unsafe_code, reason = "the standard library has no way to ignore a signal")]
pub(super) fn ignore_stop_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN installs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
