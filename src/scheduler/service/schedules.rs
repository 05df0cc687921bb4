//! Serving the requests for schedules.

use crate::model::Timestamp;
use crate::scheduler::core::Decisions;
use crate::scheduler::message::ScheduleRequest;

use super::state::Service;

impl Service {
    pub(super) fn serve_schedule(&mut self, now: Timestamp, request: ScheduleRequest, out: &mut Decisions) {
        match request {
            ScheduleRequest::Create { key, spec, reply } => {
                let result = self.check_store().and_then(|()| self.core.create_schedule(now, key, spec, out));
                let revision = self.core.revision();
                self.reply_when_durable(reply, result.map(|created| (created, revision)));
            }
            ScheduleRequest::Configure { schedules, reply } => {
                let result = self.check_store().and_then(|()| self.core.configure_schedules(now, schedules, out));
                self.reply_when_durable(reply, result);
            }
            ScheduleRequest::Get { key, reply } => {
                let found = self.core.schedule(&key).cloned();
                let revision = self.core.revision();
                self.reply_when_durable(reply, found.map(|schedule| (schedule, revision)));
            }
            ScheduleRequest::List { filter, before, count, bytes, reply } => {
                let page = self.core.list_schedules(&filter, before, count, bytes);
                let revision = self.core.revision();
                self.reply_when_durable(reply, Ok((page, revision)));
            }
            ScheduleRequest::Update { key, update, etag, reply } => {
                let etag = etag.as_deref();
                let result = self.check_store();
                let result = result.and_then(|()| self.core.update_schedule(now, &key, update, etag, out));
                let revision = self.core.revision();
                self.reply_when_durable(reply, result.map(|schedule| (schedule, revision)));
            }
            ScheduleRequest::Trigger { key, overlap, reply } => {
                let result = self.check_store();
                let result = result.and_then(|()| self.core.trigger_schedule(now, &key, overlap, out));
                let revision = self.core.revision();
                self.reply_when_durable(reply, result.map(|triggered| (triggered, revision)));
            }
        }
    }
}
