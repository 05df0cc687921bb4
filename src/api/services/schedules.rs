//! ScheduleService: create, read, change, trigger and preview schedules.

use tonic::{Request, Response, Status};

use crate::api::auth::{Caller, CallerExtractor, audit};
use crate::api::convert::schedule::{self, ParsedSpec};
use crate::api::convert::time::timestamp;
use crate::api::convert::{InvalidFields, MessagePath, filter};
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::into_status;
use crate::model::limits::{NAME_BYTES_MAX, PREVIEW_TIMES_MAX};
use crate::model::{Revision, Role, Schedule, ScheduleKey, ScheduleSpec};
use crate::proto::v1::{self, schedule_service_server::ScheduleService};
use crate::scheduler::{Handle, PageCursor, ScheduleUpdate};

use super::tasks::Converter;

/// Times of a preview if the caller sets no number.
const PREVIEW_TIMES_DEFAULT: usize = 10;
/// Maximum size of a page in bytes. Most clients refuse messages of more than 4 MiB.
const PAGE_BYTES_MAX: usize = 3 << 20;

pub struct Schedules {
    handle: Handle,
    callers: CallerExtractor,
}

impl Schedules {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }

    /// The handle whose requests count toward the share of the caller.
    fn handle_for(&self, caller: &Caller) -> Handle {
        self.handle.used_by(caller.sharer.clone())
    }

    /// Converts settings, and checks that the caller may submit their task.
    fn spec(&self, spec: Option<v1::ScheduleSpec>, key: &ScheduleKey, caller: &Caller) -> Result<ScheduleSpec, Status> {
        let mut converter = Converter::new(&self.handle, caller, None);
        let convert = |task| converter.convert(task, MessagePath::ScheduleTask);
        let spec = schedule::parse_spec(spec.unwrap_or_default(), key, convert).map_err(into_status)?;
        caller.may_submit(std::slice::from_ref(&*spec.task)).map_err(into_status)?;
        Ok(spec)
    }

    async fn create(
        &self,
        request: v1::CreateScheduleRequest,
        caller: &Caller,
    ) -> Result<v1::CreateScheduleResponse, Status> {
        let key = schedule::new_key(&request, caller.default_namespace()).map_err(into_status)?;
        caller.check_role(Role::Submitter, &key.namespace).map_err(into_status)?;
        let spec = self.spec(request.spec, &key, caller)?;
        if spec.clone().anchored(None, self.handle.now()).times_after(self.handle.now()).next().is_none() {
            let description = "has no time from now on, or from `start_at`, until `end_at`";
            return Err(into_status(InvalidFields::one("spec", description)));
        }
        let ((created, duplicate), revision) =
            self.handle_for(caller).create_schedule(key, spec).await.map_err(into_status)?;
        let schedule = Some(schedule::schedule(&created, true));
        Ok(v1::CreateScheduleResponse { schedule, duplicate, revision: revision.0 })
    }

    async fn list(
        &self,
        request: v1::ListSchedulesRequest,
        caller: &Caller,
    ) -> Result<v1::ListSchedulesResponse, Status> {
        let count = filter::page_size(request.page_size).map_err(into_status)?;
        let conditions = v1::ListSchedulesRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let before = filter::page_cursor(&request.page_token, &conditions).map_err(into_status)?;
        let mut filter = schedule::filter(&request).map_err(into_status)?;
        filter.namespaces = caller.limit_namespaces(Role::Viewer, filter.namespaces).map_err(into_status)?;
        let before = before.map(|PageCursor(at)| Revision(at));
        let listed = self.handle.list_schedules(filter, before, count, PAGE_BYTES_MAX).await;
        let (page, revision) = listed.map_err(into_status)?;
        let next = page.next.map(|revision| PageCursor(revision.0));
        Ok(v1::ListSchedulesResponse {
            schedules: page.schedules.iter().map(|found| schedule::schedule(found, false)).collect(),
            next_page_token: filter::page_token(next, &conditions),
            revision: revision.0,
        })
    }

    /// Changes a schedule; records the change under the name of the call.
    async fn change(
        &self,
        caller: &Caller,
        call: &'static str,
        id: &str,
        etag: &str,
        update: impl FnOnce(&ScheduleKey) -> Result<ScheduleUpdate, Status>,
    ) -> Result<(Schedule, Revision), Status> {
        let changed = async {
            let mut invalid = InvalidFields::default();
            invalid.check_length("etag", etag.len(), NAME_BYTES_MAX, "bytes");
            invalid.check().map_err(into_status)?;
            let key = caller.schedule_key(Role::Submitter, id)?;
            let update = update(&key)?;
            let etag = Some(etag.to_owned()).filter(|etag| !etag.is_empty());
            self.handle_for(caller).update_schedule(key, update, etag).await.map_err(into_status)
        };
        let changed = changed.await;
        audit::record(caller, call, audit::name(id), &changed);
        changed
    }

    async fn preview(
        &self,
        request: v1::PreviewScheduleRequest,
        caller: &Caller,
    ) -> Result<v1::PreviewScheduleResponse, Status> {
        let mut invalid = InvalidFields::default();
        if request.schedule_id.is_empty() == request.spec.is_none() {
            invalid.add("schedule_id", "or `spec` must be set, and only one of them");
        }
        if request.count < 0 {
            invalid.add("count", format_args!("is {}, must not be negative", request.count));
        }
        invalid.check().map_err(into_status)?;
        let count = usize::try_from(request.count).ok().filter(|count| *count > 0);
        let count = count.unwrap_or(PREVIEW_TIMES_DEFAULT).min(PREVIEW_TIMES_MAX);
        let times = if let Some(spec) = request.spec {
            let parsed = ParsedSpec::parse(&spec).map_err(into_status)?;
            parsed.times(self.handle.now(), count)
        } else {
            let key = caller.schedule_key(Role::Viewer, &request.schedule_id)?;
            let (found, _) = self.handle.schedule(key).await.map_err(into_status)?;
            found.times().take(count).collect()
        };
        Ok(v1::PreviewScheduleResponse { times: times.into_iter().map(timestamp).collect() })
    }
}

#[tonic::async_trait]
impl ScheduleService for Schedules {
    async fn create_schedule(
        &self,
        request: Request<v1::CreateScheduleRequest>,
    ) -> Result<Response<v1::CreateScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let id = audit::name(&request.schedule_id);
        let created = self.create(request, &caller).await;
        audit::record(&caller, "CreateSchedule", id, &created);
        created.map(Response::new)
    }

    async fn get_schedule(
        &self,
        request: Request<v1::GetScheduleRequest>,
    ) -> Result<Response<v1::GetScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let key = caller.schedule_key(Role::Viewer, &request.into_inner().schedule_id)?;
        let (found, revision) = self.handle.schedule(key).await.map_err(into_status)?;
        let schedule = Some(schedule::schedule(&found, true));
        Ok(Response::new(v1::GetScheduleResponse { schedule, revision: revision.0 }))
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = self.handle.reserve_response(&caller.share_name(), 2 * PAGE_BYTES_MAX as u64).await;
        let memory = memory.map_err(into_status)?;
        let response = self.list(request.into_inner(), &caller).await?;
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn update_schedule(
        &self,
        request: Request<v1::UpdateScheduleRequest>,
    ) -> Result<Response<v1::UpdateScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let v1::UpdateScheduleRequest { schedule_id, spec, etag } = request.into_inner();
        let update = |key: &ScheduleKey| Ok(ScheduleUpdate::Spec(self.spec(spec, key, &caller)?));
        let (changed, revision) = self.change(&caller, "UpdateSchedule", &schedule_id, &etag, update).await?;
        let schedule = Some(schedule::schedule(&changed, true));
        Ok(Response::new(v1::UpdateScheduleResponse { schedule, revision: revision.0 }))
    }

    async fn delete_schedule(
        &self,
        request: Request<v1::DeleteScheduleRequest>,
    ) -> Result<Response<v1::DeleteScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let v1::DeleteScheduleRequest { schedule_id, etag } = request.into_inner();
        let update = |_: &ScheduleKey| Ok(ScheduleUpdate::Delete);
        let (_, revision) = self.change(&caller, "DeleteSchedule", &schedule_id, &etag, update).await?;
        Ok(Response::new(v1::DeleteScheduleResponse { revision: revision.0 }))
    }

    async fn pause_schedule(
        &self,
        request: Request<v1::PauseScheduleRequest>,
    ) -> Result<Response<v1::PauseScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let id = request.into_inner().schedule_id;
        let update = |_: &ScheduleKey| Ok(ScheduleUpdate::Paused(true));
        let (changed, revision) = self.change(&caller, "PauseSchedule", &id, "", update).await?;
        let schedule = Some(schedule::schedule(&changed, true));
        Ok(Response::new(v1::PauseScheduleResponse { schedule, revision: revision.0 }))
    }

    async fn resume_schedule(
        &self,
        request: Request<v1::ResumeScheduleRequest>,
    ) -> Result<Response<v1::ResumeScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let id = request.into_inner().schedule_id;
        let update = |_: &ScheduleKey| Ok(ScheduleUpdate::Paused(false));
        let (changed, revision) = self.change(&caller, "ResumeSchedule", &id, "", update).await?;
        let schedule = Some(schedule::schedule(&changed, true));
        Ok(Response::new(v1::ResumeScheduleResponse { schedule, revision: revision.0 }))
    }

    async fn trigger_schedule(
        &self,
        request: Request<v1::TriggerScheduleRequest>,
    ) -> Result<Response<v1::TriggerScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let v1::TriggerScheduleRequest { schedule_id, allow_overlap } = request.into_inner();
        let triggered = async {
            let key = caller.schedule_key(Role::Submitter, &schedule_id)?;
            self.handle_for(&caller).trigger_schedule(key, allow_overlap).await.map_err(into_status)
        };
        let triggered = triggered.await;
        audit::record(&caller, "TriggerSchedule", audit::name(&schedule_id), &triggered);
        let ((found, task), revision) = triggered?;
        let (task_id, schedule) = (task.to_string(), Some(schedule::schedule(&found, true)));
        Ok(Response::new(v1::TriggerScheduleResponse { task_id, schedule, revision: revision.0 }))
    }

    async fn preview_schedule(
        &self,
        request: Request<v1::PreviewScheduleRequest>,
    ) -> Result<Response<v1::PreviewScheduleResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        self.preview(request.into_inner(), &caller).await.map(Response::new)
    }
}
