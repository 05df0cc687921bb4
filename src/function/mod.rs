//! Functions of a user's program that run tasks, in a worker or in the server itself.
//!
//! [`handler`] describes a function by name, [`context`] is what it sees of its task, and [`payload`] converts its argument
//! and its result. What runs functions implements [`Attempt`].

mod artifact;
mod context;
mod error;
mod handler;
mod log;
mod parents;
mod payload;

pub use artifact::{ArtifactContent, NewArtifact};
pub use context::{Attempt, BoxFuture, StopReason, TaskContext, TaskOutput};
pub use error::{BoxError, Permanent, permanent};
pub use handler::{Function, Handler, Handlers, Registrations, call};
pub use log::TaskLog;
pub use parents::{ParentResult, ParentResults};
pub use payload::{FromPayload, IntoPayload, Payload, PayloadError};
