//! Conditions of one schedule.

use crate::model::limits::SCHEDULES_MAX;
use crate::model::{Coded, Details, ErrorCode, Namespace, ScheduleKey, TaskId};

#[derive(Clone, Debug, thiserror::Error)]
#[error("schedule `{schedule}` does not exist or was deleted")]
pub struct ScheduleNotFound {
    pub schedule: ScheduleKey,
}

impl Coded for ScheduleNotFound {
    fn code(&self) -> ErrorCode {
        ErrorCode::ScheduleNotFound
    }

    fn details(&self) -> Details {
        Details::default().with_resource("schedule", &self.schedule)
    }
}

/// The ID is used by a schedule with different content.
#[derive(Clone, Debug, thiserror::Error)]
#[error("schedule `{schedule}` already exists with different content; update it, or choose another ID")]
pub struct ScheduleExists {
    pub schedule: ScheduleKey,
}

impl Coded for ScheduleExists {
    fn code(&self) -> ErrorCode {
        ErrorCode::ScheduleExists
    }

    fn details(&self) -> Details {
        Details::default().with_resource("schedule", &self.schedule)
    }
}

/// A schedule cannot be triggered while a task of it is unfinished.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "schedule `{schedule}` has {unfinished} unfinished tasks, such as `{task}`; wait for them, cancel them, or allow the overlap"
)]
pub struct ScheduleBusy {
    pub schedule: ScheduleKey,
    /// The oldest of them.
    pub task: TaskId,
    pub unfinished: u64,
}

impl Coded for ScheduleBusy {
    fn code(&self) -> ErrorCode {
        ErrorCode::ScheduleBusy
    }

    fn details(&self) -> Details {
        precondition(&self.schedule, "must have no unfinished task").with_metadata("task", &self.task)
    }
}

/// A schedule of the configuration is changed there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("schedule `{schedule}` is part of the configuration of the server; change it there, or pause it")]
pub struct ScheduleConfigured {
    pub schedule: ScheduleKey,
}

impl Coded for ScheduleConfigured {
    fn code(&self) -> ErrorCode {
        ErrorCode::ScheduleConfigured
    }

    fn details(&self) -> Details {
        precondition(&self.schedule, "must not be part of the configuration")
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("namespace `{namespace}` has {SCHEDULES_MAX} schedules, which is the limit; delete one first")]
pub struct TooManySchedules {
    pub namespace: Namespace,
}

impl Coded for TooManySchedules {
    fn code(&self) -> ErrorCode {
        ErrorCode::TooManySchedules
    }

    fn details(&self) -> Details {
        let quota = (format!("namespace:{}", self.namespace), format!("at most {SCHEDULES_MAX} schedules"));
        Details { quota: Some(quota), ..Details::default() }.with_metadata("limit", SCHEDULES_MAX)
    }
}

fn precondition(schedule: &ScheduleKey, description: &str) -> Details {
    Details { precondition: Some((format!("schedule:{schedule}"), description.to_owned())), ..Details::default() }
}
