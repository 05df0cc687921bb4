//! Recognising a repeated submission by a digest of everything that it asks for.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::dependencies::Dependencies;
use super::id::TaskId;
use super::request::{RequestKey, SubmissionDigest};
use super::spec::{TaskExtras, TaskOptions, TaskSpec};
use super::task_limit::{LimitRule, LimitSource, StartRate, TaskLimit};

impl SubmissionDigest {
    /// `id`: the ID of the task if the client chose it.
    pub fn of(options: &TaskOptions, extras: &TaskExtras, payload: &[u8], id: Option<&TaskId>) -> Self {
        // A field that a later version adds is added here only if it is not the default: digests are stored.
        let mut fields = Fields::new("lineshaft submission 1");
        fields.text(options.namespace.as_str());
        fields.text(&id.map(ToString::to_string).unwrap_or_default());
        fields.text(options.handler.as_str());
        fields.text(options.pool.as_str());
        fields.number(options.priority as u64);
        fields.text(&options.display_name);
        fields.number(options.labels.len() as u64);
        for (key, value) in &options.labels {
            fields.text(key);
            fields.text(value);
        }
        fields.duration(Some(options.timeout));
        fields.number(options.retry.attempts_max.into());
        fields.duration(Some(options.retry.delay));
        fields.number(options.retry.factor.to_bits());
        fields.duration(Some(options.retry.delay_max));
        fields.number(options.retry.jitter.to_bits());
        fields.number(options.at_most_once.into());
        fields.number(options.durability as u64);
        fields.text(&options.content_type);
        fields.bytes(payload);
        fields.number(extras.args.len() as u64);
        for arg in &extras.args {
            fields.text(arg);
        }
        fields.duration(extras.delay);
        fields.duration(extras.expires_after);
        for limit in &options.limits {
            fields.limit(limit);
        }
        if let Some(key) = &options.fairness_key {
            fields.text("fairness key");
            fields.text(key.as_str());
        }
        if let Some(dependencies) = &extras.dependencies {
            fields.dependencies(dependencies);
        }
        if let Some(unique) = &extras.unique {
            fields.text("unique key");
            fields.text(&unique.key);
            fields.number(unique.on_conflict as u64);
            if unique.reuse_result_within.is_some() {
                fields.duration(unique.reuse_result_within);
            }
        }
        Self(fields.finish())
    }
}

/// Hashes fields so that no two lists of fields have the same input: each has its length before it.
struct Fields(Context);

impl Fields {
    fn new(purpose: &str) -> Self {
        let mut fields = Self(Context::new(&SHA256));
        fields.text(purpose);
        fields
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// An empty field if there is none.
    fn duration(&mut self, duration: Option<Duration>) {
        match duration {
            Some(duration) => self.bytes(&duration.as_nanos().to_le_bytes()),
            None => self.bytes(&[]),
        }
    }

    /// A parent that was named by its place counts as that: its ID may be generated anew for each repetition.
    fn dependencies(&mut self, dependencies: &Dependencies) {
        self.text("dependencies");
        self.number(dependencies.on_parent_failure as u64);
        self.number(dependencies.parents.len() as u64);
        for parent in &dependencies.parents {
            match parent.place {
                Some(place) => self.bytes(&place.to_le_bytes()),
                None => self.text(&format!("id {}", parent.id)),
            }
        }
    }

    fn limit(&mut self, limit: &TaskLimit) {
        self.text(&limit.to_string());
        let LimitSource::Own(LimitRule { max_running, rate }) = limit.source else { return };
        self.number(max_running.unwrap_or(0).into());
        if let Some(StartRate { starts, interval, burst }) = rate {
            self.number(starts.into());
            self.duration(Some(interval));
            self.number(burst.into());
        }
    }

    fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        bytes
    }
}

impl TaskSpec {
    /// The request ID and the digest, which is computed if it was not stored. The spec must have its payload.
    pub fn request_with_digest(&self) -> Option<(&Arc<RequestKey>, SubmissionDigest)> {
        let key = self.extras().request.as_ref()?;
        Some((key, key.digest.unwrap_or_else(|| self.stored_digest(&self.payload))))
    }

    /// The digest of a submission that a version without digests stored. Whether the client chose a UUID is not known.
    pub fn stored_digest(&self, payload: &[u8]) -> SubmissionDigest {
        let id = matches!(self.id, TaskId::Named(_)).then_some(&self.id);
        SubmissionDigest::of(&self.options, self.extras(), payload, id)
    }

    /// Whether both ask for the same. Both must have their payload. What an update of this task has changed may differ.
    pub fn repeats(&self, other: &Self) -> bool {
        if self.extras().request_id() != other.extras().request_id() {
            return false;
        }
        let digest = |spec: &Self| SubmissionDigest::of(&spec.options, spec.extras(), &spec.payload, None);
        if !self.extras().updated {
            return digest(self) == digest(other);
        }
        let mut same = other.clone();
        let TaskOptions { priority, labels, timeout, .. } = &*self.options;
        let options = TaskOptions {
            priority: *priority,
            labels: labels.clone(),
            timeout: *timeout,
            ..TaskOptions::clone(&other.options)
        };
        same.update(Arc::new(options), self.extras().delay, self.extras().expires_after);
        digest(self) == digest(&same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Durability, PoolName, Priority};

    fn digest(options: &TaskOptions, extras: &TaskExtras, payload: &[u8]) -> SubmissionDigest {
        SubmissionDigest::of(options, extras, payload, None)
    }

    fn with_args(args: &[&str]) -> TaskExtras {
        TaskExtras { args: args.iter().map(|arg| (*arg).into()).collect(), ..TaskExtras::default() }
    }

    #[test]
    fn bytes_that_move_from_one_field_to_another_change_the_digest() {
        let options = TaskOptions::sample();
        let of = |payload: &[u8], args: &[&str]| digest(&options, &with_args(args), payload);
        assert_ne!(of(b"a\0", &[]), of(b"", &["a"]), "an argument is not a part of the payload");
        assert_ne!(of(b"", &["a", "b"]), of(b"", &["a\0b"]), "two arguments are not one");
        assert_ne!(of(b"", &["ab", ""]), of(b"", &["a", "b"]));
        let labels = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            digest(&TaskOptions { labels, ..TaskOptions::sample() }, &TaskExtras::default(), b"")
        };
        assert_ne!(labels(&[("a", "bc")]), labels(&[("ab", "c")]));
    }

    #[test]
    fn two_payloads_with_the_same_crc_have_different_digests() {
        // CRC32 is linear: these bytes change no checksum.
        let (first, second) = (*b"\x00\x00\x00\x00\x00\x00\x00\x00", *b"\x01\x00\x00\x00\xb8\xbc\x67\x65");
        let second = colliding(first, second);
        assert_eq!(crc32fast::hash(&first), crc32fast::hash(&second));
        let of = |payload: &[u8]| digest(&TaskOptions::sample(), &TaskExtras::default(), payload);
        assert_ne!(of(&first), of(&second));
    }

    /// Changes the last four bytes of `other` so that its CRC32 is that of `first`.
    fn colliding(first: [u8; 8], other: [u8; 8]) -> [u8; 8] {
        let wanted = crc32fast::hash(&first);
        let mut basis: Vec<(u32, u32)> = Vec::new();
        let mut zeroed = other;
        zeroed[4..].fill(0);
        let base = crc32fast::hash(&zeroed);
        let effect = |bits: u32| {
            let mut changed = zeroed;
            changed[4..].copy_from_slice(&bits.to_le_bytes());
            crc32fast::hash(&changed) ^ base
        };
        for bit in 0..32 {
            let (mut bits, mut value) = (1_u32 << bit, effect(1 << bit));
            for (of, with) in &basis {
                if value ^ with < value {
                    (bits, value) = (bits ^ of, value ^ with);
                }
            }
            basis.push((bits, value));
            basis.sort_unstable_by_key(|(_, value)| std::cmp::Reverse(*value));
        }
        let (mut bits, mut value) = (0, wanted ^ base);
        for (of, with) in &basis {
            if value ^ with < value {
                (bits, value) = (bits ^ of, value ^ with);
            }
        }
        zeroed[4..].copy_from_slice(&bits.to_le_bytes());
        zeroed
    }

    #[test]
    fn everything_that_a_submission_asks_for_counts() {
        let base = TaskOptions::sample;
        let mut retry = base().retry;
        retry.attempts_max += 1;
        let own = |max| TaskLimit {
            source: LimitSource::Own(LimitRule { max_running: Some(max), rate: None }),
            key: "k".into(),
        };
        let changed = [
            TaskOptions { pool: PoolName::parse("q").unwrap(), ..base() },
            TaskOptions { priority: Priority::High, ..base() },
            TaskOptions { display_name: "name".into(), ..base() },
            TaskOptions { timeout: Duration::from_secs(1), ..base() },
            TaskOptions { retry, ..base() },
            TaskOptions { at_most_once: true, ..base() },
            TaskOptions { durability: Durability::Memory, ..base() },
            TaskOptions { content_type: "text/html".into(), ..base() },
            TaskOptions { limits: [own(1)].into(), ..base() },
        ];
        let none = TaskExtras::default();
        for options in changed {
            assert_ne!(digest(&options, &none, b""), digest(&base(), &none, b""), "{options:?}");
        }
        let with = |max| digest(&TaskOptions { limits: [own(max)].into(), ..base() }, &none, b"");
        assert_ne!(with(1), with(2));
        let (delay, expiry) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(1)));
        let delayed = digest(&base(), &TaskExtras { delay, ..none.clone() }, b"");
        let expiring = digest(&base(), &TaskExtras { expires_after: expiry, ..none.clone() }, b"");
        assert!(delayed != expiring && delayed != digest(&base(), &none, b""));
        let id = TaskId::parse("chosen").unwrap();
        assert_ne!(SubmissionDigest::of(&base(), &none, b"", Some(&id)), digest(&base(), &none, b""));
    }

    #[test]
    fn parents_count_by_id_or_by_place() {
        use crate::model::{OnParentFailure, Parent};

        let of = |parents: &[Parent], on_parent_failure| {
            let dependencies = Dependencies { parents: parents.into(), on_parent_failure };
            let extras = TaskExtras { dependencies: Some(Arc::new(dependencies)), ..TaskExtras::default() };
            digest(&TaskOptions::sample(), &extras, b"")
        };
        let named = |id: &str| Parent { id: TaskId::parse(id).unwrap(), place: None };
        let placed = |place, id: &str| Parent { id: TaskId::parse(id).unwrap(), place: Some(place) };
        let (fail, run) = (OnParentFailure::Fail, OnParentFailure::Run);
        assert_ne!(of(&[named("a")], fail), digest(&TaskOptions::sample(), &TaskExtras::default(), b""));
        assert_ne!(of(&[named("a")], fail), of(&[named("b")], fail));
        assert_ne!(of(&[named("a")], fail), of(&[named("a")], run));
        assert_ne!(of(&[placed(0, "a")], fail), of(&[placed(1, "a")], fail));
        assert_eq!(of(&[placed(0, "a")], fail), of(&[placed(0, "b")], fail), "the ID at a place is generated anew");
    }

    #[test]
    fn the_submitter_and_the_batch_do_not_count() {
        let mut options = TaskOptions::sample();
        let before = digest(&options, &TaskExtras::default(), b"");
        options.submitted_by = "another".into();
        options.batch = Some(crate::model::BatchId::parse("b").unwrap());
        assert_eq!(digest(&options, &TaskExtras::default(), b""), before);
    }
}
