//! Calls for schedules. The loop has all schedules in memory and answers from there.

use hashbrown::HashMap;

use crate::model::{Revision, Schedule, ScheduleKey, ScheduleSpec, TaskId};

use super::core::{ScheduleFilter, SchedulePage, ScheduleUpdate};
use super::handle::Handle;
use super::message::{Request, ScheduleRequest};
use super::refusal::Refusal;
use super::timeouts::QUERY_TIMEOUT;

impl Handle {
    /// Creates a schedule; returns the existing one, and true, if it was created by the same request.
    ///
    /// # Errors
    /// `Draining`, `ScheduleExists`, `TooManySchedules`, `MemoryFull`, `StoreUnavailable`.
    pub async fn create_schedule(
        &self,
        key: ScheduleKey,
        spec: ScheduleSpec,
    ) -> Result<((Schedule, bool), Revision), Refusal> {
        let bytes = Schedule::bytes_of(&spec);
        self.execute(bytes, |reply| Request::Schedule(Box::new(ScheduleRequest::Create { key, spec, reply }))).await
    }

    /// Makes these the schedules of the configuration.
    ///
    /// # Errors
    /// `Draining`, `TooManySchedules`, `MemoryFull`, `StoreUnavailable`; then nothing has changed.
    pub async fn configure_schedules(&self, schedules: HashMap<ScheduleKey, ScheduleSpec>) -> Result<(), Refusal> {
        let bytes = schedules.values().map(Schedule::bytes_of).sum();
        self.execute(bytes, |reply| Request::Schedule(Box::new(ScheduleRequest::Configure { schedules, reply }))).await
    }

    /// # Errors
    /// `ScheduleNotFound`, `Draining`, `SchedulerUnresponsive`.
    pub async fn schedule(&self, key: ScheduleKey) -> Result<(Schedule, Revision), Refusal> {
        let request = |reply| Request::Schedule(Box::new(ScheduleRequest::Get { key, reply }));
        self.query_loop(QUERY_TIMEOUT, request).await
    }

    /// Schedules that match and were created before `before`, the newest first.
    ///
    /// # Errors
    /// `Draining`, `SchedulerUnresponsive`.
    pub async fn list_schedules(
        &self,
        filter: ScheduleFilter,
        before: Option<Revision>,
        count: usize,
        bytes: usize,
    ) -> Result<(SchedulePage, Revision), Refusal> {
        let list = |reply| Request::Schedule(Box::new(ScheduleRequest::List { filter, before, count, bytes, reply }));
        self.query_loop(QUERY_TIMEOUT, list).await
    }

    /// Changes, pauses, resumes or deletes a schedule, if its etag is still this one.
    ///
    /// # Errors
    /// `Draining`, `ScheduleNotFound`, `ScheduleConfigured`, `EtagMismatch`, `MemoryFull`, `StoreUnavailable`.
    pub async fn update_schedule(
        &self,
        key: ScheduleKey,
        update: ScheduleUpdate,
        etag: Option<String>,
    ) -> Result<(Schedule, Revision), Refusal> {
        let bytes = match &update {
            ScheduleUpdate::Spec(spec) => Schedule::bytes_of(spec),
            ScheduleUpdate::Paused(_) | ScheduleUpdate::Delete => 0,
        };
        let request = |reply| Request::Schedule(Box::new(ScheduleRequest::Update { key, update, etag, reply }));
        self.execute(bytes, request).await
    }

    /// Submits the task of a schedule now.
    ///
    /// # Errors
    /// `Draining`, `ScheduleNotFound`, `ScheduleBusy`, `QueueFull`, `MemoryFull`, `UnknownPool`, `StoreUnavailable`.
    pub async fn trigger_schedule(
        &self,
        key: ScheduleKey,
        overlap: bool,
    ) -> Result<((Schedule, TaskId), Revision), Refusal> {
        self.execute(0, |reply| Request::Schedule(Box::new(ScheduleRequest::Trigger { key, overlap, reply }))).await
    }
}
