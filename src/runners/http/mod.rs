//! Calls services over HTTP: the payload is the body of the request, and the body of the response is the result.
//!
//! A call uses no thread while it waits. Redirects are not followed, and proxies of the environment are not used.
//! Connections go to public addresses only, unless the operator allows others: the [`guard`] looks at each address that a
//! name resolves to before it is used. Each handler has its own connections, so that none uses those that only another is
//! allowed to open.

mod connector;
mod exchange;
mod guard;
mod handler;
mod options;
mod response;
mod runner;
mod secret_file;
#[cfg(test)]
pub(super) mod test_service;
#[cfg(test)]
mod tests;
mod text;

pub use options::{HttpOptions, OptionsError};
pub use runner::HttpRunner;
