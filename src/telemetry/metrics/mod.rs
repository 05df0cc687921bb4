//! Metrics: one table, the instruments made from it, and their readers.
//!
//! `table` declares, `instruments` makes, `tasks`, `attempts`, `pools`, `calls`, `artifacts`, `exports` and `host` measure.
//! `registry` owns instruments and readers: OTLP and `/metrics` read the same counts. `exposition` writes the text
//! for Prometheus, `page_cache` shares it among scrapers, `exemplar` links a bucket to a trace.
//!
//! Measuring on the path of a task neither waits nor allocates: workers write to a `ring` of their own, the
//! scheduler adds up a commit, and the SDK gets the sums later. Everything that can be read from elsewhere is read
//! at collection.

mod artifacts;
mod attempts;
mod calls;
mod commit_times;
mod disk;
mod exemplar;
mod exports;
mod exposition;
mod host;
mod instruments;
mod page_cache;
mod pools;
mod registry;
mod ring;
pub mod table;
mod tasks;
#[cfg(test)]
mod tests;

pub use artifacts::ArtifactCounts;
pub use attempts::{AttemptMeter, AttemptResult, PoolMeter};
pub use calls::{Call, CallMeter};
pub use exemplar::SampledSpan;
pub use exposition::Format;
pub use pools::{PoolReading, ServerGauges, WatchMeter};
pub use registry::{Builder, Histograms, Metrics};
pub use tasks::{CommitMeter, priority_label};
