//! The edge: the only module that knows tonic. Turns the contract into the model and back, and
//! refusals into rich errors.

mod connections;
mod convert;
mod deadline;
mod guard;
mod handlers;
mod health;
mod http;
mod keda;
mod pools;
mod probes;
mod server;
mod sniff;
mod status;
mod system;
mod tasks;
mod traced;

pub use server::{HostReading, Options, ServeError, serve, serve_probes};
