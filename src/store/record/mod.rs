//! The bytes of commits and of the projection's rows, and how an event changes a task.
//!
//! Values are encoded as Protocol Buffers, without a `.proto` file. A later version may add fields, which this
//! version skips, and variants, which it rejects by name. A field number is never reused.

mod artifact;
mod batch;
mod commit;
mod corruption;
mod dependencies;
mod fold;
mod handler;
mod pool;
mod schedule;
mod subjects;
mod task;
mod task_limit;
mod trace;
mod values;

pub use batch::BatchRecord;
pub use commit::{commit_checksum, decode_commit, encode_commit};
pub use corruption::{Corruption, checksum};
pub use fold::{advance, ended_attempt, fold, output_of, submitted};
pub use schedule::{EncodedSpec, ScheduleRecord};
pub use subjects::Subjects;
pub use task::{OptionsRecord, SpecRecord, StatusRecord};
pub use values::{OutputRecord, PayloadRecord};
