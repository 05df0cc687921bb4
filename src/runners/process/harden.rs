//! Hardening of the server process, inherited by all its children.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::sys;

/// Disables what no handler needs, for this process and all that it starts: gaining privileges, inheriting
/// the files that the server was started with, and core dumps, which would write payloads to disk. Signals that the
/// server was started with as blocked are unblocked, and children are reaped when they exit. Hides this process, see
/// [`hide_process`].
/// Call it once, on the main thread, before any other thread is started and before secrets are read.
///
/// # Errors
/// When a system call fails.
pub fn harden_process() -> io::Result<()> {
    hide_process()?;
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    sys::unblock_signals();
    sys::reap_children_automatically()?;
    sys::close_inherited_files_on_exec()
}

/// Prevents other processes of this user from reading the environment, the memory and the open files of this process, and
/// from debugging it. The copies that it makes of itself are hidden, too; a program that is executed is not.
///
/// # Errors
/// As the system call.
pub(super) fn hide_process() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
