//! The loop around the core: it drains its inbox, lets the core decide, makes the events durable in one append,
//! and only then releases effects.
//!
//! One commit is in flight at a time; the decisions that the core makes meanwhile are part of the next commit. So
//! under load more requests share a sync (group commit).
//!
//! `start` builds the service, `run` is the loop, `requests` serves callers, `retention` deletes finished tasks,
//! `commit` makes events durable.

mod commit;
#[cfg(test)]
mod first_turn_tests;
mod requests;
mod retention;
mod run;
mod start;
mod state;
#[cfg(test)]
mod tests;

pub use start::{Options, Recovery};
pub use state::Service;
