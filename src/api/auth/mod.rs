//! Who calls, and what that caller may do.
//!
//! The guard around all routes asks at the entry (`entry`) for the caller's identity: an API key (`keys`), a JWT (`jwt`)
//! or a client certificate (`certificate`). One table (`table`) says what role each RPC needs; what is
//! not in it is refused. Services take the identity from the request as a [`Caller`] and hold the
//! walls between namespaces. Without authentication nothing of this is asked, and everything allowed.

mod access;
pub(super) mod audit;
mod certificate;
mod entry;
mod failures;
mod identity;
mod jwt;
mod keys;
mod ledger;
mod limits;
mod table;

pub use access::{AuthError, AuthOptions};
pub use certificate::CertificateRule;
pub use jwt::{Algorithm, ClaimRule, JwtOptions, KeySource};
pub use limits::LimitOptions;

pub(super) use access::Access;
pub(super) use certificate::CertificateNames;
pub(super) use entry::Entry;
pub(super) use identity::{Caller, Gate};
pub(super) use limits::Hold;
pub(super) use table::takes_stream;
