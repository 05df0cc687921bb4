//! The bytes of a commit: a format byte and a [`CommitRecord`].
//!
//! The record holds the distinct task options once, and the events with an index into them. Revisions are not stored:
//! the first is the commit's key, and the rest follow it.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use prost::Message;
use prost::encoding::message;

use super::artifact::ArtifactsRecord;
use super::batch::BatchEventRecord;
use super::corruption::{Corruption, checksum};
use super::handler::HandlerRecord;
use super::pool::PoolRecord;
use super::schedule::ScheduleEventRecord;
use super::task::{OptionsRecord, SpecRecord};
use super::task_limit::{LimitChargeRecord, LimitHoldRecord};
use super::values::{
    FailureRecord, OutputRecord, PayloadRecord, ReceiptRecord, RequestRecord, UsageRecord, nanos, unknown, variant,
};
use crate::model::{
    Event, Failure, Holds, InterruptCause, Lease, LimitCharge, Output, ResourceUsage, Revision, TaskChange, TaskEvent,
    TaskId, TaskOptions, TaskState, Timestamp,
};

/// First byte of every encoded commit.
const FORMAT: u8 = 1;
/// Field numbers of [`CommitRecord`].
const OPTIONS: u32 = 1;
const EVENT: u32 = 3;

#[derive(Clone, PartialEq, Message)]
struct CommitRecord {
    #[prost(message, repeated, tag = "1")]
    options: Vec<OptionsRecord>,
    /// Time of the first event; the times of the events are relative to it.
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(message, repeated, tag = "3")]
    events: Vec<EventRecord>,
}

/// An event of a task, unless the subject is set.
#[derive(Clone, PartialEq, Message)]
struct EventRecord {
    #[prost(sint64, tag = "1")]
    at: i64,
    #[prost(fixed64, optional, tag = "2")]
    uuid_high: Option<u64>,
    #[prost(fixed64, optional, tag = "3")]
    uuid_low: Option<u64>,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(uint32, tag = "5")]
    options: u32,
    #[prost(uint32, tag = "6")]
    previous: u32,
    #[prost(uint32, tag = "7")]
    state: u32,
    #[prost(uint32, tag = "8")]
    attempt: u32,
    /// Of `Started`: the epoch of the server whose worker runs the attempt.
    #[prost(uint64, tag = "9")]
    epoch: u64,
    #[prost(oneof = "ChangeRecord", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 22, 25")]
    change: Option<ChangeRecord>,
    /// Of `Started`: the fence of an attempt that a remote worker holds; 0 otherwise.
    #[prost(uint64, tag = "20")]
    remote_fence: u64,
    /// WAITING: the limit for which the task waits.
    #[prost(message, optional, tag = "23")]
    hold: Option<LimitHoldRecord>,
    /// Of `Started`.
    #[prost(message, repeated, tag = "24")]
    charges: Vec<LimitChargeRecord>,
    /// WAITING: why; 0 in the events of earlier versions.
    #[prost(uint32, tag = "26")]
    holds: u32,
    /// What has changed, if not a task. Tags from 30 on.
    #[prost(oneof = "SubjectRecord", tags = "30, 31, 32, 33")]
    subject: Option<SubjectRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum SubjectRecord {
    #[prost(message, tag = "30")]
    Pool(PoolRecord),
    #[prost(message, tag = "31")]
    Handler(HandlerRecord),
    #[prost(message, tag = "32")]
    Batch(BatchEventRecord),
    #[prost(message, tag = "33")]
    Schedule(ScheduleEventRecord),
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ChangeRecord {
    #[prost(message, tag = "10")]
    Submitted(Box<SubmittedRecord>),
    #[prost(bool, tag = "11")]
    Eligible(bool),
    #[prost(string, tag = "12")]
    Started(String),
    #[prost(message, tag = "13")]
    Completed(Box<EndRecord>),
    #[prost(message, tag = "14")]
    Retrying(Box<EndRecord>),
    #[prost(message, tag = "15")]
    Failed(Box<EndRecord>),
    #[prost(uint32, tag = "16")]
    Interrupted(u32),
    #[prost(message, tag = "17")]
    CancelRequested(Box<RequestRecord>),
    #[prost(message, tag = "18")]
    Cancelled(Box<EndRecord>),
    #[prost(bool, tag = "19")]
    Deleted(bool),
    #[prost(bool, tag = "22")]
    Held(bool),
    #[prost(message, tag = "25")]
    Updated(UpdatedRecord),
}

/// The durations are in nanoseconds.
#[derive(Clone, PartialEq, Message)]
struct UpdatedRecord {
    #[prost(uint64, optional, tag = "1")]
    delay: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    expires_after: Option<u64>,
    /// The options that were replaced. None in events of earlier versions.
    #[prost(uint32, optional, tag = "3")]
    before: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct SubmittedRecord {
    #[prost(message, optional, tag = "1")]
    spec: Option<SpecRecord>,
    /// Set only when they differ from the options of the event.
    #[prost(uint32, optional, tag = "2")]
    options: Option<u32>,
}

/// The end of an attempt; which fields are set depends on how it ended.
#[derive(Clone, PartialEq, Message)]
struct EndRecord {
    #[prost(message, optional, tag = "1")]
    result: Option<PayloadRecord>,
    #[prost(message, optional, tag = "2")]
    failure: Option<FailureRecord>,
    #[prost(message, optional, tag = "3")]
    receipt: Option<ReceiptRecord>,
    #[prost(uint64, optional, tag = "4")]
    not_before: Option<u64>,
    #[prost(message, optional, tag = "5")]
    usage: Option<UsageRecord>,
    #[prost(message, optional, tag = "6")]
    output: Option<OutputRecord>,
    #[prost(message, optional, tag = "7")]
    artifacts: Option<ArtifactsRecord>,
}

/// Appends the encoding of events with consecutive revisions to `bytes`.
///
/// Each record is written before the next one is made, so that it stays in the cache of the processor: those of a large
/// commit together would be larger than its bytes.
pub fn encode_commit(events: &[Event], bytes: &mut Vec<u8>) {
    let mut dictionary = Dictionary::default();
    let at = events.first().map_or(0, |event| event.at().0);
    bytes.push(FORMAT);
    CommitRecord { at, ..CommitRecord::default() }.encode_raw(bytes);
    for event in events {
        message::encode(EVENT, &event_record(event, at, &mut dictionary), bytes);
    }
    for record in dictionary.records() {
        message::encode(OPTIONS, &record, bytes);
    }
}

/// Decodes a commit whose first event has the revision `first`.
pub fn decode_commit(first: Revision, bytes: &[u8]) -> Result<Vec<Event>, Corruption> {
    let body = match bytes.split_first() {
        Some((&FORMAT, body)) => body,
        Some((format, _)) => {
            return Err(Corruption::new(format!("unknown format {format}; a later version may have written it")));
        }
        None => return Err(Corruption::new("empty record")),
    };
    let record = CommitRecord::decode(body)?;
    let mut options: Vec<Arc<TaskOptions>> = Vec::with_capacity(record.options.len());
    for record in record.options {
        options.push(Arc::new(record.into_model_after(&options)?));
    }
    let at = record.at;
    let decode = |(index, record)| event_model(Revision(first.0 + index), record, at, &options);
    (0_u64..).zip(record.events).map(decode).collect()
}

/// The checksum of a commit covers its bytes and its position.
pub fn commit_checksum(first: u64, count: u64, body: &[u8]) -> u32 {
    checksum(&[&first.to_le_bytes(), &count.to_le_bytes(), body])
}

/// The distinct options of a commit, found by address, since equal ones are shared. Options that resemble the last complete ones have
/// only what differs: tasks of many schedules, or with many limits, are often alike.
#[derive(Default)]
struct Dictionary<'a> {
    /// With the index of the options that they resemble.
    entries: Vec<(&'a TaskOptions, Option<u32>)>,
    by_address: HashMap<*const TaskOptions, u32>,
    last: Option<(*const TaskOptions, u32)>,
    last_complete: Option<(&'a TaskOptions, u32)>,
}

impl<'a> Dictionary<'a> {
    fn index(&mut self, options: &'a Arc<TaskOptions>) -> u32 {
        let address = Arc::as_ptr(options);
        if let Some((last, index)) = self.last
            && last == address
        {
            return index;
        }
        let index = match self.by_address.entry(address) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
                let like = self.last_complete.filter(|(complete, _)| options.resembles(complete));
                if like.is_none() {
                    self.last_complete = Some((options, index));
                }
                self.entries.push((options, like.map(|(_, index)| index)));
                *new.insert(index)
            }
        };
        self.last = Some((address, index));
        index
    }

    fn records(&self) -> impl Iterator<Item = OptionsRecord> {
        self.entries.iter().map(|(options, like)| match like {
            Some(index) => OptionsRecord::resembling(*index, options),
            None => OptionsRecord::from(*options),
        })
    }
}

fn event_record<'a>(event: &'a Event, at: u64, dictionary: &mut Dictionary<'a>) -> EventRecord {
    let (event_at, subject) = match event {
        Event::Task(event) => return task_record(event, at, dictionary),
        Event::Batch(event) => (event.at, SubjectRecord::Batch(event.into())),
        Event::Schedule(event) => (event.at, SubjectRecord::Schedule(event.into())),
        Event::Pool(event) => (event.at, SubjectRecord::Pool(event.into())),
        Event::Handler(event) => (event.at, SubjectRecord::Handler(event.into())),
    };
    let at = event_at.0.wrapping_sub(at).cast_signed();
    EventRecord { at, subject: Some(subject), ..EventRecord::default() }
}

fn task_record<'a>(event: &'a TaskEvent, at: u64, dictionary: &mut Dictionary<'a>) -> EventRecord {
    let (uuid_high, uuid_low, name) = match &event.task {
        TaskId::Uuid(bytes) => {
            let number = u128::from_be_bytes(*bytes);
            let low = u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default();
            (u64::try_from(number >> 64).ok(), Some(low), String::new())
        }
        TaskId::Named(name) => (None, None, name.to_string()),
    };
    let options = dictionary.index(&event.options);
    let (epoch, remote_fence, charges) = match &event.change {
        TaskChange::Started { lease, charges, .. } => {
            let charges = charges.iter().map(Into::into).collect();
            match lease {
                Lease::Local { epoch } => (*epoch, 0, charges),
                Lease::Remote { fence } => (0, *fence, charges),
            }
        }
        _ => (0, 0, Vec::new()),
    };
    EventRecord {
        at: event.at.0.wrapping_sub(at).cast_signed(),
        uuid_high,
        uuid_low,
        name,
        options,
        previous: event.previous as u32,
        state: event.state as u32,
        attempt: event.attempt,
        epoch,
        remote_fence,
        holds: event.holds.number().into(),
        hold: event.hold.as_deref().map(Into::into),
        charges,
        change: Some(change_record(&event.change, options, dictionary)),
        subject: None,
    }
}

fn change_record<'a>(change: &'a TaskChange, event_options: u32, dictionary: &mut Dictionary<'a>) -> ChangeRecord {
    match change {
        TaskChange::Submitted { spec } => {
            let options = dictionary.index(&spec.options);
            let options = (options != event_options).then_some(options);
            ChangeRecord::Submitted(Box::new(SubmittedRecord { spec: Some(spec.into()), options }))
        }
        TaskChange::Updated { delay, expires_after, before } => ChangeRecord::Updated(UpdatedRecord {
            delay: delay.map(nanos),
            expires_after: expires_after.map(nanos),
            before: before.as_ref().map(|before| dictionary.index(before)),
        }),
        TaskChange::Eligible => ChangeRecord::Eligible(true),
        TaskChange::Held => ChangeRecord::Held(true),
        TaskChange::Started { worker, .. } => ChangeRecord::Started(worker.to_string()),
        TaskChange::Completed { result, usage, output, artifacts } => ChangeRecord::Completed(Box::new(EndRecord {
            result: Some(result.into()),
            artifacts: artifacts.as_deref().map(Into::into),
            ..EndRecord::new(Some(usage), output.as_deref())
        })),
        TaskChange::Retrying { failure, not_before, usage, output } => ChangeRecord::Retrying(Box::new(EndRecord {
            failure: Some((&**failure).into()),
            not_before: Some(not_before.0),
            ..EndRecord::new(Some(usage), output.as_deref())
        })),
        TaskChange::Failed { failure, usage, output } => ChangeRecord::Failed(Box::new(EndRecord {
            failure: Some((&**failure).into()),
            ..EndRecord::new(usage.as_deref(), output.as_deref())
        })),
        TaskChange::Interrupted { cause } => ChangeRecord::Interrupted(*cause as u32),
        TaskChange::CancelRequested { request } => ChangeRecord::CancelRequested(Box::new((&**request).into())),
        TaskChange::Cancelled { receipt, usage, output } => ChangeRecord::Cancelled(Box::new(EndRecord {
            receipt: Some((&**receipt).into()),
            ..EndRecord::new(usage.as_deref(), output.as_deref())
        })),
        TaskChange::Deleted => ChangeRecord::Deleted(true),
    }
}

impl EndRecord {
    fn new(usage: Option<&ResourceUsage>, output: Option<&Output>) -> Self {
        Self { usage: usage.map(Into::into), output: output.map(Into::into), ..Self::default() }
    }

    fn take_failure(&mut self) -> Result<Box<Failure>, Corruption> {
        self.failure.take().ok_or_else(|| missing("failure"))?.into_model().map(Box::new)
    }

    fn take_usage(&mut self) -> Option<Box<ResourceUsage>> {
        self.usage.take().map(|usage| Box::new(usage.into_model()))
    }

    fn take_output(&mut self) -> Option<Box<Output>> {
        self.output.take().map(|output| Box::new(output.into_model()))
    }
}

fn missing(what: &str) -> Corruption {
    Corruption::new(format!("event without {what}"))
}

fn event_model(
    revision: Revision,
    record: EventRecord,
    at: u64,
    dictionary: &[Arc<TaskOptions>],
) -> Result<Event, Corruption> {
    let time = Timestamp(at.wrapping_add_signed(record.at));
    match record.subject {
        Some(SubjectRecord::Pool(pool)) => pool.into_model(revision, time).map(Event::Pool),
        Some(SubjectRecord::Batch(batch)) => batch.into_model(revision, time).map(Event::Batch),
        Some(SubjectRecord::Schedule(schedule)) => schedule.into_model(revision, time).map(Event::Schedule),
        Some(SubjectRecord::Handler(handler)) => handler.into_model(revision, time).map(Event::Handler),
        None => task_model(revision, record, time, dictionary).map(Event::Task),
    }
}

fn task_model(
    revision: Revision,
    record: EventRecord,
    at: Timestamp,
    dictionary: &[Arc<TaskOptions>],
) -> Result<TaskEvent, Corruption> {
    let find = |index: u32| {
        let entry = usize::try_from(index).ok().and_then(|index| dictionary.get(index));
        entry.cloned().ok_or_else(|| Corruption::new(format!("task options {index} are missing")))
    };
    let task = match (record.uuid_high, record.uuid_low) {
        (Some(high), Some(low)) => TaskId::Uuid((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
        _ if record.name.is_empty() => return Err(missing("task id")),
        _ => TaskId::Named(record.name.into()),
    };
    let options = find(record.options)?;
    let change = match record.change {
        None => return Err(Corruption::new("missing or unknown change; a later version may have written it")),
        Some(ChangeRecord::Submitted(submitted)) => {
            let options = submitted.options.map_or_else(|| Ok(Arc::clone(&options)), find)?;
            let spec = submitted.spec.ok_or_else(|| missing("task spec"))?;
            TaskChange::Submitted { spec: Arc::new(spec.into_model(task.clone(), options, at)?) }
        }
        Some(ChangeRecord::Updated(UpdatedRecord { delay, expires_after, before })) => TaskChange::Updated {
            delay: delay.map(Duration::from_nanos),
            expires_after: expires_after.map(Duration::from_nanos),
            before: before.map(find).transpose()?,
        },
        Some(other) => {
            let lease = match record.remote_fence {
                0 => Lease::Local { epoch: record.epoch },
                fence => Lease::Remote { fence },
            };
            let charges = record.charges.into_iter().map(LimitChargeRecord::into_model);
            change_model(other, lease, charges.collect::<Result<_, _>>()?)?
        }
    };
    Ok(TaskEvent {
        revision,
        at,
        task,
        options,
        previous: variant("task state", record.previous, TaskState::from_number)?,
        state: variant("task state", record.state, TaskState::from_number)?,
        attempt: record.attempt,
        holds: variant("holds", record.holds, Holds::from_number)?,
        hold: record.hold.map(LimitHoldRecord::into_model).transpose()?,
        change,
    })
}

/// Decodes any change except a submission and an update. Only a start has a lease and charges.
fn change_model(record: ChangeRecord, lease: Lease, charges: Box<[LimitCharge]>) -> Result<TaskChange, Corruption> {
    Ok(match record {
        ChangeRecord::Submitted(_) | ChangeRecord::Updated(_) => return Err(missing("task options")),
        ChangeRecord::Eligible(_) => TaskChange::Eligible,
        ChangeRecord::Held(_) => TaskChange::Held,
        ChangeRecord::Started(worker) => TaskChange::Started { worker: worker.into(), lease, charges },
        ChangeRecord::Completed(mut end) => TaskChange::Completed {
            result: end.result.take().ok_or_else(|| missing("result"))?.into_model(),
            usage: end.take_usage().ok_or_else(|| missing("resource usage"))?,
            output: end.take_output(),
            artifacts: end.artifacts.take().map(ArtifactsRecord::into_model).transpose()?.map(Arc::new),
        },
        ChangeRecord::Retrying(mut end) => TaskChange::Retrying {
            failure: end.take_failure()?,
            not_before: Timestamp(end.not_before.ok_or_else(|| missing("retry time"))?),
            usage: end.take_usage().ok_or_else(|| missing("resource usage"))?,
            output: end.take_output(),
        },
        ChangeRecord::Failed(mut end) => {
            TaskChange::Failed { failure: end.take_failure()?, usage: end.take_usage(), output: end.take_output() }
        }
        ChangeRecord::Interrupted(1) => TaskChange::Interrupted { cause: InterruptCause::Drain },
        ChangeRecord::Interrupted(2) => TaskChange::Interrupted { cause: InterruptCause::Crash },
        ChangeRecord::Interrupted(3) => TaskChange::Interrupted { cause: InterruptCause::Unavailable },
        ChangeRecord::Interrupted(4) => TaskChange::Interrupted { cause: InterruptCause::WorkerLost },
        ChangeRecord::Interrupted(other) => return Err(unknown("interrupt cause", other)),
        ChangeRecord::CancelRequested(request) => {
            TaskChange::CancelRequested { request: Box::new(request.into_model()?) }
        }
        ChangeRecord::Cancelled(mut end) => TaskChange::Cancelled {
            receipt: Box::new(end.receipt.take().ok_or_else(|| missing("cancel receipt"))?.into_model()?),
            usage: end.take_usage(),
            output: end.take_output(),
        },
        ChangeRecord::Deleted(_) => TaskChange::Deleted,
    })
}
