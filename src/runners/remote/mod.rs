//! Runs attempts in remote workers: programs that are connected by a stream of messages.
//!
//! A [`Link`] is the connection to one worker, as the server sees it. It outlives the streams of the worker: when a stream
//! breaks, the worker has the time of its lease to open another one, and its attempts go on. [`RemoteRunner`] runs one
//! attempt over a link.

mod link;
mod messages;
#[cfg(test)]
pub(super) mod played;
mod runner;

pub use link::{Link, LinkEnd, Reconnected};
pub use messages::{Assigned, CloseReason, Command, Token, WorkerReport};
pub use runner::{RemoteRunner, Slot};
