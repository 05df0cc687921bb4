//! Shared by the black-box tests: the server under test, waiting for conditions, requests, and processes.

mod control_group;
mod eventually;
pub mod example;
mod faults;
mod messages;
mod process;
mod proxy;
mod server;

pub use control_group::ControlGroup;
pub use eventually::{TIMEOUT, check, eventually, eventually_blocking};
pub use faults::Faults;
pub use messages::{bytes, fields, millis, noop, reason, seconds, task};
pub use process::{KillOnDrop, children, is_running, isolated, run, unshare_flags, without_root};
pub use proxy::{Direction, Proxy};
pub use server::{BINARY, IN_MEMORY, Server};
