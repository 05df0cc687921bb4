//! Text that messages, logs and dumps do not show.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// Stands for what is hidden. It is refused as a value, so that a dump that has it is not loaded by mistake.
pub const MASK: &str = "(hidden)";

thread_local! {
    static REVEALED: Cell<bool> = const { Cell::new(false) };
}

/// Serializes the secrets of `write` on this thread as they are.
pub fn with_secrets_revealed<T>(write: impl FnOnce() -> T) -> T {
    REVEALED.set(true);
    let written = write();
    REVEALED.set(false);
    written
}

/// Text that is secret as a whole.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A URL whose user, password and query are secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn masked(&self) -> String {
        let (bare, query) = match self.0.find(['?', '#']) {
            Some(at) => (&self.0[..at], format!("?{MASK}")),
            None => (&*self.0, String::new()),
        };
        let (scheme, rest) = match bare.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), bare),
        };
        // A password may contain a slash that should have been escaped.
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}{MASK}@{host}{query}"),
            None => format!("{scheme}{rest}{query}"),
        }
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.masked(), f)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if REVEALED.get() { &self.0 } else { MASK })
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = if REVEALED.get() { Cow::Borrowed(&*self.0) } else { Cow::Owned(self.masked()) };
        serializer.serialize_str(&shown)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SecretUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// `writeOnly` is how JSON schema says that a value is not shown.
macro_rules! write_only_schema {
    ($type:ty) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "writeOnly": true })
            }
        }
    };
}

write_only_schema!(Secret);
write_only_schema!(SecretUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        let secret = Secret::from("hunter2".to_owned());
        let json = |value: &dyn Fn() -> serde_json::Result<String>| value().unwrap();
        assert_eq!(format!("{secret:?} {}", json(&|| serde_json::to_string(&secret))), "(hidden) \"(hidden)\"");
        assert_eq!(with_secrets_revealed(|| json(&|| serde_json::to_string(&secret))), "\"hunter2\"");
        assert_eq!(json(&|| serde_json::to_string(&secret)), "\"(hidden)\"");
        for (url, shown) in [
            ("http://c:4317/v1", "http://c:4317/v1"),
            ("http://me:hunter2@c:1/v1", "http://(hidden)@c:1/v1"),
            ("http://me:hun/ter2@c:1", "http://(hidden)@c:1"),
            ("https://c/keys?token=hunter2#x", "https://c/keys?(hidden)"),
            ("me:hunter2@c", "(hidden)@c"),
            ("", ""),
        ] {
            let url = SecretUrl::from(url);
            assert_eq!((url.to_string().as_str(), format!("{url:?}")), (shown, format!("{shown:?}")));
            assert_eq!(json(&|| serde_json::to_string(&url)), format!("{shown:?}"));
        }
    }
}
