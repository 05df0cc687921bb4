//! Built-in handlers: they compute or wait, and need nothing outside of the server.
//!
//! All of them check `Run::stop` themselves and end with [`StopMethod::Token`](crate::model::StopMethod).
//! A payload that cannot be parsed ends the attempt with INVALID_PAYLOAD and names field, value and limit.

mod compute;
mod expression;
mod heavy;
mod io;
mod patterns;
mod payload;
mod step_budget;
#[cfg(test)]
mod tests;
mod work;

pub use compute::Compute;
pub use expression::Expression;
pub use heavy::Heavy;
pub use io::Io;
