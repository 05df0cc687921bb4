//! A client of one server: the connection, its credentials, and calls that submit tasks, read their results and watch them.

mod artifact;
mod backoff;
mod bounded_channel;
mod channel;
mod error;
mod many;
mod repeat;
mod task;
mod watch;

pub use artifact::Download;
pub use backoff::{LONGEST_PAUSE, pause_after};
pub use channel::{Client, ClientBuilder, ClientChannel};
pub use error::{CallError, ConnectError, is_connection_error, may_help, reason};
pub use many::Completed;
pub use task::{Task, from_message, to_message};
pub use watch::Watch;
