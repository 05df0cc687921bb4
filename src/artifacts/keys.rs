//! Keys of objects: namespace, task, attempt, and a digest of the name of the artifact.
//!
//! A name can be longer than a file system allows once it is encoded, and it must lead nowhere. The fence of an attempt is never
//! used again, so that no attempt finds objects of another one.

use std::fmt::Write;

use object_store::path::{Path, PathPart};
use ring::digest::{SHA256, digest};

use crate::model::{ArtifactName, Artifacts, Namespace, TaskId};

/// The prefix of all objects of a task.
pub(super) fn of_task(namespace: &Namespace, task: &TaskId) -> Path {
    let task = task.to_string();
    [PathPart::from(namespace.as_str()), PathPart::from(task.as_str())].into_iter().collect()
}

/// The prefix of all objects of an attempt.
pub(super) fn of_attempt(namespace: &Namespace, task: &TaskId, fence: u64) -> Path {
    of_task(namespace, task).join(fence.to_string())
}

pub(super) fn of_artifact(namespace: &Namespace, task: &TaskId, fence: u64, name: &ArtifactName) -> Path {
    of_attempt(namespace, task, fence).join(hex(digest(&SHA256, name.as_str().as_bytes()).as_ref()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

pub(super) fn of_artifacts<'a>(
    namespace: &'a Namespace,
    task: &'a TaskId,
    artifacts: &'a Artifacts,
) -> impl Iterator<Item = Path> + 'a {
    artifacts.files.iter().map(|file| of_artifact(namespace, task, artifacts.fence, &file.name))
}

/// The namespace and the task of a prefix, from the names of its two directories.
pub(super) fn parse(namespace: &str, task: &str) -> Option<(Namespace, TaskId)> {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8().ok();
    Some((Namespace::parse(&decoded(namespace)?).ok()?, TaskId::parse(&decoded(task)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_a_task_leads_back_to_it_and_nowhere_else() {
        let namespace = Namespace::parse("..").unwrap();
        for id in
            ["..", "a:b", "../..", "team/0190c3a2-3b1e-7c55-9df1-0123456789ab", "0190c3a2-3b1e-7c55-9df1-0123456789ab"]
        {
            let task = TaskId::parse(id).unwrap();
            let prefix = of_task(&namespace, &task);
            let parts: Vec<_> = prefix.parts().map(|part| part.as_ref().to_owned()).collect();
            let [first, second] = &parts[..] else { panic!("{prefix}") };
            assert!(first != ".." && second != "..", "{prefix}");
            assert_eq!(parse(first, second), Some((namespace.clone(), task)));
        }
        assert_eq!(parse("default", "%FF"), None);
    }

    #[test]
    fn every_attempt_and_name_has_a_key_of_its_own() {
        let (namespace, task) = (Namespace::default(), TaskId::parse("t").unwrap());
        let key = |fence, name| of_artifact(&namespace, &task, fence, &ArtifactName::parse(name).unwrap()).to_string();
        let keys = [key(1, "a"), key(2, "a"), key(1, "A"), key(1, "é"), key(1, "e\u{301}")];
        assert!(keys[0].starts_with("default/t/1/"));
        assert_eq!(std::collections::BTreeSet::from(keys).len(), 5);
    }
}
