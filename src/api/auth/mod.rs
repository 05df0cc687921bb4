//! Who calls, and what that caller may do.
//!
//! The guard around all routes asks at the entry (`entry`) for the caller's identity: an API key (`keys`), a JWT (`jwt`)
//! or a client certificate (`certificate`). One table (`table`) says what role each RPC needs; what is
//! not in it is refused. Services take the identity from the request as a [`Caller`] and hold the
//! walls between namespaces. Without authentication nothing of this is asked, and everything allowed.

pub mod audit;
mod authenticate;
mod authenticator;
mod certificate;
mod failure_limiter;
mod identity;
mod jwt;
mod keys;
mod permissions;
mod quota;
mod quota_tracker;

pub use authenticator::{AuthError, AuthOptions};
pub use certificate::CertificateRule;
pub use jwt::{Algorithm, ClaimRule, JwtOptions, KeySource};
pub use quota::LimitOptions;

pub use authenticate::AccessControl;
pub use authenticator::Authenticator;
pub use certificate::CertificateNames;
pub use identity::{Caller, CallerExtractor};
pub use permissions::takes_stream;
pub use quota::Reservation;
