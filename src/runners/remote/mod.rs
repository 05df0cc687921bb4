//! Runs attempts in remote workers: programs that are connected by a stream of messages.
//!
//! A [`Link`] is the connection to one worker, as the server sees it. It outlives the streams of the worker: when a stream
//! breaks, the worker has the time of its lease to open another one, and its attempts go on. An attempt is an entry in the
//! table of its link. Three things act on it: the messages of the worker, commands of the scheduler, and one task for each
//! link, [`Link::drive`], that looks for what is due. Whatever removes the entry has the end of the attempt.

mod drive;
mod entry;
mod link;
mod messages;
#[cfg(test)]
pub(super) mod played;

pub use drive::LinkHost;
pub use entry::{LinkedAttempt, Start};
pub use link::{Happened, Link, LinkEnd, Polled};
pub use messages::{Assigned, Chunk, CloseReason, Command, Token, WorkerReport};
