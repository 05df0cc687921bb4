//! What the journal and the projection share: connections, migrations and error mapping.

mod connection;
mod error;
mod free_pages;
mod read_errors;
mod readers;
mod structure;

pub use connection::{
    Conversion, Schema, checkpoint, connect, connect_immutable, keep_wal_on_close, open_writer, schema_version,
};
pub use error::sqlite_error;
pub use free_pages::{Released, release_free_pages};
pub use readers::Readers;
pub use structure::verify_structure;
