//! System calls that the standard library and rustix lack. All `unsafe` code of the runners is here.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Pid;

/// How a process ended and what it used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    pub(super) cpu_time: Duration,
    /// Largest resident set size; `None` if it cannot be distinguished from that of the shim.
    pub(super) peak_memory_bytes: Option<u64>,
}

/// Reaps a child, or any child. Unless `wait` is set, returns `None` while it is running.
///
/// # Errors
/// `ECHILD` if there is no such child.
#[expect(unsafe_code, reason = "only wait4 returns the usage of a single child")]
pub(super) fn reap(child: Option<Pid>, wait: bool) -> io::Result<Option<(Pid, Exit)>> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let options = if wait { 0 } else { libc::WNOHANG };
    let pid = child.map_or(-1, |child| child.as_raw_nonzero().get());
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
    // SAFETY: zeroed is a valid rusage.
    let usage = unsafe { usage.assume_init() };
    let exit = Exit {
        status: ExitStatus::from_raw(status),
        cpu_time: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory_bytes: peak_above_own(usage.ru_maxrss),
    };
    Ok(Pid::from_raw(found).map(|pid| (pid, exit)))
}

fn time(time: libc::timeval) -> Duration {
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), micros * 1_000)
}

/// A child starts with the memory of its parent, which the kernel counts into the child's peak. So the peak
/// describes the child only if it is above the parent's own.
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

/// Gives this process, and so all that it starts, the default disposition of each signal that it was started with
/// as ignored, and an empty signal mask. SIGPIPE stays ignored here; the standard library resets it in children.
#[expect(unsafe_code, reason = "the standard library and rustix have no signal dispositions")]
pub(super) fn reset_signals() {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the pointers are to live locals or null, zeroed is a valid sigaction, and SIG_DFL installs no code.
        // The call fails for the two signals that the C library reserves for itself.
        unsafe {
            let found = libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            if found == 0 && action.assume_init_ref().sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    unblock_signals();
}

/// Empties the signal mask of the calling thread, and so of the threads and processes that it starts.
#[expect(unsafe_code, reason = "the standard library and rustix have no signal mask")]
pub(super) fn unblock_signals() {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointers are to a live local, which `sigemptyset` initializes, or null.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Gives the signals that stop a server no effect on this process; for the supervisor. They are caught instead of
/// ignored, because programs inherit ignored signals, but not handlers.
#[expect(unsafe_code, reason = "the standard library and rustix cannot install a signal handler")]
pub(super) fn catch_stop_signals() {
    extern "C" fn no_effect(_: libc::c_int) {}
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: the handler does nothing, so it is async-signal-safe.
        unsafe { libc::signal(signal, no_effect as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// Lets the kernel reap the children of this process as soon as they exit: orphans that it gets as the init process
/// of a container, and the supervisor. Programs that it starts do not inherit this.
#[expect(unsafe_code, reason = "the standard library and rustix have no signal dispositions")]
pub(super) fn reap_children_automatically() -> io::Result<()> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zeroed is a valid sigaction with SIG_DFL and an empty mask; SIG_DFL installs no code.
    let result = unsafe {
        action.assume_init_mut().sa_flags = libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, action.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Copies this process; returns the copy's id, and `None` in the copy. The copy has only the calling thread, so
/// no other thread may hold a lock, such as that of the memory allocator.
#[expect(unsafe_code, reason = "a copy shares its memory with this process; starting the program again costs more")]
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the supervisor, which calls this, has one thread only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends a copy made by [`fork`], without what the program it is a copy of does at its end.
#[expect(unsafe_code, reason = "the standard library has no such exit")]
pub(super) fn exit_copy() -> ! {
    // SAFETY: has no preconditions.
    unsafe { libc::_exit(0) }
}
