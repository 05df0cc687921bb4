//! Hardening of the server process, inherited by all its children.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::sys;

/// Disables what no handler needs, for this process and all that it starts: gaining privileges, inheriting
/// the files that the server was started with, and core dumps, which would write payloads to disk. Signals that the
/// server was started with as blocked are unblocked, and children are reaped when they exit. Hides this process, see
/// [`sys::hide_process`].
/// Call it once, on the main thread, before any other thread is started and before secrets are read.
///
/// # Errors
/// When a system call fails.
pub fn harden_process() -> io::Result<()> {
    sys::hide_process()?;
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    sys::unblock_signals();
    sys::reap_children_automatically()?;
    sys::close_inherited_files_on_exec()
}
