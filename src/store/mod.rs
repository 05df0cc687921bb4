//! Durable storage: a journal of events, and a projection of it that answers queries.
//!
//! The journal is the source of truth. The projection can be rebuilt from it, as far back as the journal reaches.
//! Each has an SQLite and an in-memory implementation, and both pass the same suites (`tests::conformance` and
//! `tests::journal_contract`).
//!
//! Files import downwards only:
//!
//! | file | content |
//! |---|---|
//! | `paths`, `error`, `filesystem`, `threads`, `page`, `progress` | shared types |
//! | `traits` | `Journal` and `Projection` |
//! | `record` | bytes of commits and rows; how an event changes a task |
//! | `wal_check`, `watermark` | detect lost or corrupt ends of files that SQLite would accept |
//! | `sqlite` | connections, migrations, error mapping |
//! | `journal` | the journal in SQLite |
//! | `projection` | the projection in SQLite |
//! | `memory` | both in memory |
//! | `modules` | files of uploaded WebAssembly modules |
//! | `open`, `backup` | open, rebuild, check and copy a store directory |

mod backup;
mod error;
mod filesystem;
mod journal;
mod journal_sizes;
mod memory;
mod modules;
mod open;
mod page;
mod paths;
mod progress;
mod projection;
mod record;
mod sqlite;
#[cfg(test)]
mod tests;
mod threads;
mod traits;
mod wal_check;
mod watermark;

pub use backup::{CheckReport, backup, check, discard_backup};
pub use error::StoreError;
#[cfg(test)]
pub use memory::MemoryJournal;
pub use open::{Options, Store, open, rebuild};
pub use page::{Page, PageCursor, PageSize};
pub use progress::Report;
pub use record::{fold, output_of};
#[cfg(test)]
pub use tests::faulty::FaultyJournal;
#[cfg(test)]
pub use traits::AppendDone;
pub use traits::{AppendError, COMMIT_BYTES_MAX, Commit, FoundRequests, Journal, Projection, Recover};
