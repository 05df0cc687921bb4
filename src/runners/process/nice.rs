//! The niceness of a program's session: how much of a busy CPU it leaves to others.

use std::fs::OpenOptions;
use std::io::Write;

use rustix::process::{Pid, getpriority_process};

use super::account::Account;
use super::sys::FileRights;

/// Gives the session of a program its niceness. Many kernels share the CPU between sessions first (`autogroup`), and a new
/// session has the niceness 0.
///
/// Errors are ignored: other kernels have no such file, and the kernel refuses more than ten changes per second to servers
/// without CAP_SYS_ADMIN.
pub(super) fn apply_to_session(program: Pid, account: Option<Account>) {
    let Ok(nice) = getpriority_process(Some(program)) else { return };
    let _rights = account.map(FileRights::of);
    let file = OpenOptions::new().write(true).open(format!("/proc/{}/autogroup", program.as_raw_nonzero()));
    let _ = file.and_then(|mut file| file.write_all(nice.to_string().as_bytes()));
}
