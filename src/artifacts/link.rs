//! Links to artifacts, which need no token: signed, and valid for a time.

use std::io;
use std::path::Path;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use ring::rand::{SecureRandom, SystemRandom};

use crate::files::{read_private, replace, require_private_directory};
use crate::model::{ArtifactName, TaskId};

const KEY_BYTES: usize = 32;
const KEY_MODE: u32 = 0o600;

/// The key of a server, which survives restarts.
#[derive(Clone, Debug)]
pub struct LinkKey(Key);

/// What a link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget {
    pub task: TaskId,
    /// Fence of the attempt that has left the artifact, so that a link never leads to the artifact of another task with the same ID.
    pub fence: u64,
    pub name: ArtifactName,
    /// When the link ends, in seconds since the Unix epoch.
    pub expires: u64,
}

impl LinkKey {
    /// Reads the key of a directory, or makes one. Blocks.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("link.key");
        let bytes = match read_private(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = vec![0; KEY_BYTES];
                SystemRandom::new()
                    .fill(&mut bytes)
                    .map_err(|_| io::Error::other("the system has no random numbers"))?;
                require_private_directory(directory)?;
                replace(&path, &bytes, KEY_MODE)?;
                bytes
            }
            read => read?,
        };
        if bytes.len() != KEY_BYTES {
            let text = format!("`{}` has {} bytes, must have {KEY_BYTES}; remove it", path.display(), bytes.len());
            return Err(io::Error::other(text));
        }
        Ok(Self(Key::new(HMAC_SHA256, &bytes)))
    }

    pub fn sign(&self, target: &LinkTarget) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(sign(&self.0, &target.message()))
    }

    /// Whether the signature is that of the target. Takes the same time for all signatures.
    pub fn is_valid(&self, target: &LinkTarget, signature: &str) -> bool {
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
        signature.is_ok_and(|signature| verify(&self.0, &target.message(), &signature).is_ok())
    }
}

impl LinkTarget {
    /// Unambiguous, because neither IDs nor names have zero bytes.
    fn message(&self) -> Vec<u8> {
        let Self { task, fence, name, expires } = self;
        format!("artifact\0{task}\0{fence}\0{name}\0{expires}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_valid_for_its_target_only_and_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("artifacts");
        let key = LinkKey::open(&directory).unwrap();
        let name = |text: &str| ArtifactName::parse(text).unwrap();
        let target =
            LinkTarget { task: TaskId::parse("t").unwrap(), fence: 7, name: name("a b"), expires: 1_800_000_000 };
        let signature = key.sign(&target);
        let restarted = LinkKey::open(&directory).unwrap();
        assert!(restarted.is_valid(&target, &signature));
        let others = [
            LinkTarget { task: TaskId::parse("u").unwrap(), ..target.clone() },
            LinkTarget { fence: 8, ..target.clone() },
            LinkTarget { name: name("a"), ..target.clone() },
            LinkTarget { expires: target.expires + 1, ..target.clone() },
        ];
        assert!(others.iter().all(|other| !key.is_valid(other, &signature)));
        for bad in ["", "?", &signature[1..], &format!("{signature}A")] {
            assert!(!key.is_valid(&target, bad), "{bad:?}");
        }
        std::fs::write(directory.join("link.key"), "short").unwrap();
        assert!(LinkKey::open(&directory).unwrap_err().to_string().contains("has 5 bytes, must have 32"));
        std::fs::remove_file(directory.join("link.key")).unwrap();
        assert!(!LinkKey::open(&directory).unwrap().is_valid(&target, &signature), "another key");
    }
}
