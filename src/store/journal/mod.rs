//! The journal in SQLite, the file `journal.db`: one row per commit.
//!
//! A small commit is written by its caller's thread. A larger one is handed to the journal's thread, which writes all
//! waiting commits in one transaction with one sync. A third thread runs checkpoints beside both, so that a writer
//! only has to do the short last part of one.

mod checkpointer;
mod handle;
mod identity;
mod lease;
mod pool_table;
mod rows;
mod schema;
mod state;
mod writer;

pub use handle::SqliteJournal;
pub use identity::load as load_store_id;
pub use lease::load as load_epoch;
pub use pool_table::load as load_pool_table;
pub use rows::{handler_events, verify};
pub use schema::{Bounds, SCHEMA};
