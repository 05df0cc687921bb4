//! Artifacts: named files that a task leaves beside its result.

use std::fmt;
use std::sync::Arc;

use super::limits::ARTIFACT_NAME_BYTES_MAX;

/// Name of an artifact: one part of a path, in any script.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactName(Arc<str>);

/// Why a text is no name of an artifact. The messages follow the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactNameError {
    #[error("must not be empty")]
    Empty,
    #[error("has {length} bytes, at most {ARTIFACT_NAME_BYTES_MAX} are allowed")]
    TooLong { length: usize },
    #[error("is the name of a directory")]
    Directory,
    #[error(
        "contains the character {found:?}, not allowed are `/`, `\\`, control characters and those that change the direction of text"
    )]
    BadCharacter { found: char },
}

impl ArtifactName {
    /// Parses 1 to 255 bytes without path separators and control characters, other than `.` and `..`.
    ///
    /// # Errors
    /// [`ArtifactNameError`].
    pub fn parse(text: &str) -> Result<Self, ArtifactNameError> {
        if text.is_empty() {
            return Err(ArtifactNameError::Empty);
        }
        if text.len() > ARTIFACT_NAME_BYTES_MAX {
            return Err(ArtifactNameError::TooLong { length: text.len() });
        }
        if matches!(text, "." | "..") {
            return Err(ArtifactNameError::Directory);
        }
        match text.chars().find(|c| matches!(c, '/' | '\\') || is_control(*c)) {
            Some(found) => Err(ArtifactNameError::BadCharacter { found }),
            None => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters, line separators, and what changes the direction of a text, so that `gpj.exe` is shown as `exe.jpg`.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub name: ArtifactName,
    pub content_type: Arc<str>,
    pub bytes: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

/// The artifacts of a task: those of the attempt that has completed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// Fence of that attempt, which is a part of their keys in the object store.
    pub fence: u64,
    /// Not empty; names are unique.
    pub files: Box<[Artifact]>,
}

impl Artifacts {
    /// Bytes of everything of variable size.
    pub fn content_bytes(&self) -> usize {
        let bytes = |file: &Artifact| size_of::<Artifact>() + file.name.as_str().len() + file.content_type.len();
        self.files.iter().map(bytes).sum()
    }

    pub fn find(&self, name: &ArtifactName) -> Option<&Artifact> {
        self.files.iter().find(|file| file.name == *name)
    }
}

/// What one attempt may leave.
#[derive(Clone, Copy, Debug)]
pub struct ArtifactLimits {
    /// Number of artifacts.
    pub count: usize,
    /// Bytes of each.
    pub file_bytes: u64,
    /// Bytes of all.
    pub task_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_part_of_a_path_in_any_script() {
        let longest = "x".repeat(255);
        for name in ["a", "...", ".hidden", "Überblick 2026.pdf", "一覧表.csv", "تقرير.pdf", "-rf", "a:b?c*", &longest]
        {
            assert_eq!(ArtifactName::parse(name).unwrap().as_str(), name);
        }
        for name in ["a/b", "a\\b", "a\nb", "a\0", "\u{7f}", "\u{85}", "fdp.\u{202e}exe", "a\u{2028}b"] {
            let error = ArtifactName::parse(name).unwrap_err();
            assert!(matches!(error, ArtifactNameError::BadCharacter { .. }), "{name:?}: {error}");
        }
        let text = |name: &str| ArtifactName::parse(name).unwrap_err().to_string();
        assert_eq!(text(""), "must not be empty");
        assert_eq!(text(".."), "is the name of a directory");
        assert_eq!(text(&"é".repeat(128)), "has 256 bytes, at most 255 are allowed");
    }
}
