//! Artifacts: files that tasks leave, in an object store: a directory of the server, or a bucket of S3.
//!
//! An attempt writes to files without names ([`AttemptArtifacts`]). When it has completed, they get names in the directory, or are
//! copied to the bucket, under keys of their own, and their list becomes a part of the event that completes the task. So no artifact is
//! visible before it is complete and its task durable; what an attempt that failed has written is gone at once. What a program has left
//! is always copied, since the program may still write to it.
//!
//! Objects that no completed task names are left behind by crashes, by attempts whose end did not count, and by deleted tasks.
//! The [`Cleaner`] compares what the store has with what the task names: after the end of a task and its deletion, at the start of
//! the server, and when the artifacts have reached their age.

mod attempt;
mod cleaner;
mod content_type;
mod error;
mod file;
mod keys;
mod known;
mod leftovers;
mod link;
mod object;
mod s3;
mod staged;
mod store;
#[cfg(test)]
mod tests;
mod upload;
mod verify;

pub use attempt::AttemptArtifacts;
pub use cleaner::{Cleaner, Owner};
pub use content_type::content_type_of;
pub use error::ArtifactError;
pub use link::{LinkKey, LinkTarget};
pub use s3::Bucket;
pub use store::{ArtifactStore, Options};
