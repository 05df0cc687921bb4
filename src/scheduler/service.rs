//! The loop around the core: it drains its inbox, lets the core decide, makes the events durable in one append,
//! and only then releases effects.
//!
//! As long as commits are small, as many are in flight as the journal wants: one if it syncs a local disk, so that the
//! decisions that the core makes meanwhile share the next sync (group commit). A commit that is full is closed and
//! appended while others are in flight.
//!
//! `start` builds the service, `run` is the loop, `requests` and `batches` serve callers, `configuration`
//! replaces handlers and pools, `handlers` registers single ones, `retention` deletes finished tasks,
//! `resources` lets pools follow their load and the memory, `pending` collects decisions, `commit` makes them durable.

mod batches;
mod commit;
mod configuration;
#[cfg(test)]
mod first_turn_tests;
mod handlers;
mod pending;
#[cfg(test)]
mod registration_tests;
mod requests;
mod resources;
#[cfg(test)]
mod resources_tests;
mod retention;
mod run;
mod schedules;
mod start;
mod state;
#[cfg(test)]
mod tests;

pub use start::{Options, Recovery};
pub use state::Service;
