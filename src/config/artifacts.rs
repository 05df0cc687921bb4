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

    pub(super) fn check(&self, problems: &mut Problems) {
        let (age_min, age_max) =
            (HumanDuration(Duration::from_secs(1)), HumanDuration(Duration::from_hours(10 * 365 * 24)));
        problems.check_range("artifacts.age", self.age, age_min, age_max);
        let most = ByteSize(1 << 40);
        problems.check_range("artifacts.file_bytes", self.file_bytes, ByteSize(1), most);
        problems.check_range("artifacts.task_bytes", self.task_bytes, self.file_bytes.min(most), most);
        problems.check_range("artifacts.count", self.count, 1, limits::ARTIFACTS_MAX);
    }
}
