//! The argument and the result of a function, and their JSON.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model;
use crate::model::spec::{JSON, OCTET_STREAM};

/// Bytes with a content type. As the argument or result of a function it is passed on as it is; any other type is JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payload {
    /// The bytes.
    pub data: Bytes,
    /// MIME type, such as `application/json`.
    pub content_type: Arc<str>,
}

/// A payload that cannot be converted.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PayloadError(serde_json::Error);

/// An argument of a function.
pub trait FromPayload: Sized {
    /// Decodes the argument.
    ///
    /// # Errors
    /// [`PayloadError`] fails the task, and it is not retried.
    fn from_payload(payload: Payload) -> Result<Self, PayloadError>;
}

/// A result of a function, or the payload of a submission.
pub trait IntoPayload {
    /// Encodes the value.
    ///
    /// # Errors
    /// [`PayloadError`] if the value has no JSON form.
    fn into_payload(self) -> Result<Payload, PayloadError>;
}

impl Payload {
    /// Bytes of any kind.
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self::with_type(data.into(), OCTET_STREAM)
    }

    /// Bytes with a MIME type, such as `text/plain`.
    pub fn with_type(data: impl Into<Bytes>, content_type: &str) -> Self {
        // Shared, so that the usual types need no allocation.
        static USUAL: LazyLock<[Arc<str>; 2]> = LazyLock::new(|| [JSON, OCTET_STREAM].map(Arc::from));
        let usual = USUAL.iter().find(|usual| &***usual == content_type).cloned();
        Self { data: data.into(), content_type: usual.unwrap_or_else(|| content_type.into()) }
    }

    /// Decodes JSON. An empty payload is `null`.
    ///
    /// # Errors
    /// [`PayloadError`] if the bytes are not JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        let text: &[u8] = if self.data.is_empty() { b"null" } else { &self.data };
        serde_json::from_slice(text).map_err(PayloadError)
    }
}

impl From<Payload> for model::Payload {
    fn from(Payload { data, content_type }: Payload) -> Self {
        Self { data, content_type }
    }
}

impl FromPayload for Payload {
    fn from_payload(payload: Payload) -> Result<Self, PayloadError> {
        Ok(payload)
    }
}

impl<T: DeserializeOwned> FromPayload for T {
    fn from_payload(payload: Payload) -> Result<Self, PayloadError> {
        payload.json()
    }
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload, PayloadError> {
        Ok(self)
    }
}

impl<T: Serialize> IntoPayload for T {
    fn into_payload(self) -> Result<Payload, PayloadError> {
        let data = serde_json::to_vec(&self).map_err(PayloadError)?;
        Ok(Payload::with_type(data, JSON))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_passed_on_and_values_are_json() {
        let raw = Payload::with_type("abc", "text/plain");
        assert_eq!(Payload::from_payload(raw.clone()).unwrap(), raw);
        assert_eq!(raw.clone().into_payload().unwrap(), raw);
        let json = vec![1, 2].into_payload().unwrap();
        assert_eq!((&*json.data, &*json.content_type), (&b"[1,2]"[..], "application/json"));
        assert_eq!(Vec::<u8>::from_payload(json).unwrap(), [1, 2]);
        assert!(u8::from_payload(Payload::new("x")).is_err());
    }

    #[test]
    fn an_empty_payload_is_null() {
        assert_eq!(Option::<u8>::from_payload(Payload::default()).unwrap(), None);
        <()>::from_payload(Payload::default()).unwrap();
    }
}
