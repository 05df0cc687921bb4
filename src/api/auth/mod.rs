//! Authentication, permissions and quotas.
//!
//! A caller is identified by an API key (`keys`), a JWT (`jwt`) or a client certificate (`certificate`).
//! One table (`permissions`) lists the role that each RPC requires; a call that is not listed is denied. The
//! services read the identity of a request as a [`Caller`] and keep namespaces apart. Without
//! authentication nothing is checked and everything is allowed.

pub mod audit;
mod authenticate;
mod authenticator;
mod caller;
mod certificate;
mod connection_info;
mod error;
mod failure_limiter;
mod identity;
mod in_use;
mod jwt;
mod keys;
mod permissions;
mod quota;
mod quota_tracker;
mod refusal;
mod refusal_budget;
mod stream_lease;
#[cfg(test)]
pub mod test_support;

pub use authenticator::AuthOptions;
pub use certificate::CertificateRule;
pub use error::AuthError;
pub use jwt::{Algorithm, ClaimRule, JwtOptions, KeySource};
pub use quota::LimitOptions;

pub use authenticate::AccessControl;
pub use authenticator::Authenticator;
pub use caller::{Caller, CallerExtractor};
pub use certificate::CertificateNames;
pub use connection_info::{ConnectionInfo, sharer_of};
pub use identity::Identity;
pub use in_use::InUse;
pub use permissions::{
    PUT_HANDLER, READ_ARTIFACT, UPLOAD_ARTIFACT, WORK, is_public, is_streaming, makes_room, submits, takes_stream,
};
pub use quota::Reservation;
pub use refusal::Unauthenticated;
pub use stream_lease::StreamLease;
