//! Section `[artifacts]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::units::{ByteSize, HumanDuration};
use crate::model::{ArtifactLimits, limits};

/// `[artifacts]`: files that tasks leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Artifacts {
    /// Where they are stored: "s3://BUCKET" or "s3://BUCKET/PREFIX" in any store with the interface of S3, whose credentials, region
    /// and endpoint are in the variables `AWS_…`. Default: the directory `artifacts` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Maximum time for which artifacts are kept after their task has finished, 1s to 3650d; they are deleted with their task at the
    /// latest. Default: 7d.
    pub age: HumanDuration,
    /// Maximum size of an artifact, 1B to 1TiB. Default: "1GiB".
    pub file_bytes: ByteSize,
    /// Maximum size of all artifacts of a task, `file_bytes` to 1TiB. Default: "4GiB".
    pub task_bytes: ByteSize,
    /// Maximum number of artifacts of a task, 1 to 1,000. Default: 100.
    pub count: usize,
}

impl Default for Artifacts {
    fn default() -> Self {
        Self {
            url: None,
            age: HumanDuration(Duration::from_hours(7 * 24)),
            file_bytes: ByteSize(1 << 30),
            task_bytes: ByteSize(4 << 30),
            count: 100,
        }
    }
}

impl Artifacts {
    pub fn limits(&self) -> ArtifactLimits {
        ArtifactLimits { count: self.count, file_bytes: self.file_bytes.0, task_bytes: self.task_bytes.0 }
    }

    /// Name and prefix of the bucket, if the URL is valid.
    pub fn bucket(&self) -> Option<(String, String)> {
        let path = self.url.as_ref()?.strip_prefix("s3://")?.trim_end_matches('/');
        let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
        let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let in_prefix = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(in_prefix);
        let is_valid = (3..=63).contains(&name.len())
            && name.bytes().all(in_name)
            && (prefix.is_empty() || prefix.split('/').all(is_part));
        is_valid.then(|| (name.to_owned(), prefix.to_owned()))
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        let (age_min, age_max) =
            (HumanDuration(Duration::from_secs(1)), HumanDuration(Duration::from_hours(10 * 365 * 24)));
        // The value is not shown, since it could have credentials.
        if self.url.is_some() && self.bucket().is_none() {
            let description = "must be `s3://BUCKET` or `s3://BUCKET/PREFIX`; a bucket has 3 to 63 lower-case letters, digits, `.` \
                               and `-`, and a prefix has letters, digits, `.`, `-`, `_` and `/`";
            problems.add("artifacts.url", "", description);
        }
        problems.check_range("artifacts.age", self.age, age_min, age_max);
        let most = ByteSize(1 << 40);
        problems.check_range("artifacts.file_bytes", self.file_bytes, ByteSize(1), most);
        problems.check_range("artifacts.task_bytes", self.task_bytes, self.file_bytes.min(most), most);
        problems.check_range("artifacts.count", self.count, 1, limits::ARTIFACTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_and_no_credentials() {
        let check = |url: &str| {
            let artifacts = Artifacts { url: Some(url.to_owned()), ..Artifacts::default() };
            let mut problems = Problems::default();
            artifacts.check(&mut problems);
            (artifacts.bucket(), problems.0.iter().map(ToString::to_string).collect::<String>())
        };
        let found = |name: &str, prefix: &str| (Some((name.to_owned(), prefix.to_owned())), String::new());
        assert_eq!(check("s3://park"), found("park", ""));
        assert_eq!(check("s3://park.files/a/b_1/"), found("park.files", "a/b_1"));
        for bad in [
            "",
            "park",
            "s3://",
            "s3://pa",
            "s3://Park",
            "s3://park//a",
            "s3://park/../a",
            "s3://park/a?region=x",
            "s3://hunter2:hunter2@park",
            "file:///park",
        ] {
            let (bucket, problem) = check(bad);
            assert!(
                bucket.is_none() && problem.starts_with("artifacts.url: must be `s3://BUCKET`"),
                "{bad}: {problem}"
            );
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
