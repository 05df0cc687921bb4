//! Names and ids: parsed once, cheap to clone, never confused with each other.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

/// Number of one event; one sequence per server, starting at 1. 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The namespace of who names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Why a text is not a valid name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// Longer than allowed.
    #[error("has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A character outside the allowed set.
    #[error("has the character {found:?}, allowed are letters, digits and . _ : -")]
    BadCharacter {
        /// The first offender.
        found: char,
    },
}

/// Checks the alphabet that all names share: 1 to 64 of `[A-Za-z0-9._:-]`.
pub fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > super::limits::NAME_BYTES_MAX {
        return Err(NameError::TooLong { length: text.len(), limit: super::limits::NAME_BYTES_MAX });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || ".:_-".contains(*c))) {
        Some(found) => Err(NameError::BadCharacter { found }),
        None => Ok(()),
    }
}

/// Identity of a task: a UUID made by the server, or a name chosen by the client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskId {
    /// The usual kind; 16 bytes, no allocation.
    Uuid([u8; 16]),
    /// Chosen by a client: `NAMESPACE/NAME`, or in the namespace `default` any name but a canonical UUID.
    Named(Arc<str>),
}

impl TaskId {
    /// Parses the text form: a UUID or a name of the namespace `default`, or `NAMESPACE/NAME`. A canonical
    /// lower-case UUID takes the compact form.
    ///
    /// # Errors
    /// [`NameError`] when a part is not 1 to 64 of `[A-Za-z0-9._:-]`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some((namespace, name)) = text.split_once('/') {
            return Self::named(&Namespace::parse(namespace)?, name);
        }
        if text.len() == 36
            && let Ok(uuid) = Uuid::try_parse(text)
            && uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
        {
            return Ok(Self::Uuid(uuid.into_bytes()));
        }
        check_name(text)?;
        Ok(Self::Named(text.into()))
    }

    /// What a submitter of that namespace calls `name`. Outside `default` it carries the namespace, so
    /// that no tenant meets the names of another.
    ///
    /// # Errors
    /// [`NameError`] when the name is not 1 to 64 of `[A-Za-z0-9._:-]`.
    pub fn named(namespace: &Namespace, name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        if namespace.as_str() == DEFAULT_NAMESPACE {
            return Self::parse(name);
        }
        Ok(Self::Named(format!("{namespace}/{name}").into()))
    }
}

impl TaskId {
    /// What a caller who is at home in that namespace may mean, the likely task first: a bare name is one
    /// of that namespace, and a UUID was made by the server or chosen.
    ///
    /// # Errors
    /// [`NameError`] as [`TaskId::parse`].
    pub fn candidates(home: &Namespace, text: &str) -> Result<Vec<Self>, NameError> {
        let parsed = Self::parse(text)?;
        if text.contains('/') || home.as_str() == DEFAULT_NAMESPACE {
            return Ok(vec![parsed]);
        }
        let chosen = Self::named(home, text)?;
        Ok(if matches!(parsed, Self::Uuid(_)) { vec![parsed, chosen] } else { vec![chosen] })
    }
}

impl From<&TaskId> for TaskId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl From<Uuid> for TaskId {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid.into_bytes())
    }
}

impl Hash for TaskId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Uuid(bytes) => state.write(bytes),
            Self::Named(name) => state.write(name.as_bytes()),
        }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => {
                f.write_str(Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses 1 to 64 of `[A-Za-z0-9._:-]`.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong with the text.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&$name> for $name {
            fn from(name: &Self) -> Self {
                name.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type!(
    /// Name of a pool of workers.
    PoolName
);
name_type!(
    /// Registered name of something that can run.
    HandlerName
);
name_type!(
    /// A tenant.
    Namespace
);
name_type!(
    /// Tasks submitted together.
    BatchId
);

impl Default for Namespace {
    fn default() -> Self {
        Self(DEFAULT_NAMESPACE.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canonical_uuid_takes_the_compact_form_and_any_other_text_keeps_its_letters() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert!(matches!(TaskId::parse(uuid), Ok(TaskId::Uuid(_))));
        let upper = uuid.to_uppercase();
        assert_eq!(TaskId::parse(&upper).unwrap().to_string(), upper);
        assert_eq!(TaskId::parse(uuid).unwrap().to_string(), uuid);
    }

    #[test]
    fn a_chosen_name_carries_its_namespace_unless_that_is_the_default_one() {
        let team = Namespace::parse("team").unwrap();
        let chosen = TaskId::named(&team, "mine").unwrap();
        assert_eq!(chosen.to_string(), "team/mine");
        assert_eq!(TaskId::parse("team/mine").unwrap(), chosen);
        assert_eq!(TaskId::parse("default/mine").unwrap(), TaskId::parse("mine").unwrap());
        assert_eq!(TaskId::named(&Namespace::default(), "mine").unwrap(), TaskId::parse("mine").unwrap());
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert!(matches!(TaskId::named(&team, uuid), Ok(TaskId::Named(_))));
        assert_eq!(TaskId::parse(&format!("default/{uuid}")), TaskId::parse(uuid));
        for text in ["team/", "/mine", "a/b/c", "te am/mine"] {
            assert!(TaskId::parse(text).is_err(), "{text}");
        }
        assert!(TaskId::named(&team, "a/b").is_err());
    }

    #[test]
    fn a_name_outside_the_alphabet_is_refused_with_its_fault() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name("a b"), Err(NameError::BadCharacter { found: ' ' }));
        assert!(matches!(check_name(&"x".repeat(65)), Err(NameError::TooLong { length: 65, limit: 64 })));
    }
}
