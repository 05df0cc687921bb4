//! A client of one server: the connection, its credentials, and simple calls that submit a task and read its result.

mod backoff;
mod bounded_channel;
mod channel;
mod error;
mod task;

pub use backoff::{LONGEST_PAUSE, pause_after};
pub use channel::{Client, ClientBuilder, ClientChannel};
pub use error::{CallError, ConnectError, is_connection_error, may_help, reason};
pub use task::{Task, from_message, to_message};
