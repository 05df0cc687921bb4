//! Conditions of one task or one submission.

use std::fmt;

use crate::model::{
    ArtifactName, Coded, Details, ErrorCode, FieldViolation, HandlerName, Namespace, TaskId, TaskState,
};

/// A field of a submission is invalid in combination with others or with the state of the scheduler.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{field}` {description}")]
pub struct BadField {
    /// Path of the field in the request.
    pub field: String,
    pub description: String,
}

impl Coded for BadField {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        let violation = FieldViolation { field: self.field.clone(), description: self.description.clone() };
        Details { violations: vec![violation], ..Details::default() }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("handler `{handler}` is not registered; run `lineshaft handler list`, or start a worker that offers it")]
pub struct UnknownHandler {
    pub handler: HandlerName,
}

impl Coded for UnknownHandler {
    fn code(&self) -> ErrorCode {
        ErrorCode::UnknownHandler
    }

    fn details(&self) -> Details {
        Details::default().with_resource("handler", &self.handler)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` does not exist or was deleted")]
pub struct TaskNotFound {
    pub task: TaskId,
}

impl Coded for TaskNotFound {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskNotFound
    }

    fn details(&self) -> Details {
        Details::default().with_resource("task", &self.task)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` has no artifact {name:?}, it has reached its age (`artifacts.age`), or its file is missing")]
pub struct ArtifactNotFound {
    pub task: String,
    pub name: ArtifactName,
}

impl Coded for ArtifactNotFound {
    fn code(&self) -> ErrorCode {
        ErrorCode::ArtifactNotFound
    }

    fn details(&self) -> Details {
        Details::default().with_resource("artifact", &self.name)
    }
}

/// The chosen task ID is used by a task with different content.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` already exists with different content")]
pub struct TaskExists {
    pub task: TaskId,
}

impl Coded for TaskExists {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskExists
    }

    fn details(&self) -> Details {
        Details::default().with_metadata("existing_task", &self.task).with_resource("task", &self.task)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("unique key `{key}` is that of {holder}; wait for it, or set `on_unique_conflict`")]
pub struct UniqueKeyTaken {
    pub key: Box<str>,
    pub holder: KeyHolder,
}

/// Which task has a unique key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHolder {
    Task(TaskId),
    /// Position in the same submission.
    Submitted(usize),
}

impl fmt::Display for KeyHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(task) => write!(f, "task `{task}`, which has not ended"),
            Self::Submitted(position) => write!(f, "`tasks[{position}]` of the same call"),
        }
    }
}

impl Coded for UniqueKeyTaken {
    fn code(&self) -> ErrorCode {
        ErrorCode::UniqueKeyTaken
    }

    fn details(&self) -> Details {
        match &self.holder {
            KeyHolder::Task(task) => {
                Details::default().with_metadata("existing_task", task).with_resource("task", task)
            }
            KeyHolder::Submitted(_) => Details::default(),
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("request ID `{request_id}` was already used for task `{task}` with different content")]
pub struct RequestIdReused {
    pub request_id: Box<str>,
    /// The task that was created with this request ID.
    pub task: TaskId,
}

impl Coded for RequestIdReused {
    fn code(&self) -> ErrorCode {
        ErrorCode::RequestIdReused
    }

    fn details(&self) -> Details {
        Details::default().with_metadata("existing_task", &self.task)
    }
}

/// A task on which a submission depends does not exist in the namespace of the submission.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{field}` is {value}, which does not exist in namespace `{namespace}` or was deleted")]
pub struct ParentNotFound {
    /// Path of the field in the request.
    pub field: String,
    /// The ID in the request, or the place and the ID.
    pub value: String,
    pub namespace: Namespace,
    pub parent: TaskId,
}

impl Coded for ParentNotFound {
    fn code(&self) -> ErrorCode {
        ErrorCode::ParentNotFound
    }

    fn details(&self) -> Details {
        let details = Details::default().with_metadata("field", &self.field).with_metadata("parent", &self.parent);
        details.with_resource("task", &self.parent)
    }
}

/// The task has ended, so that it can be neither cancelled nor updated.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` has already ended in state {}", state.name())]
pub struct TaskFinished {
    pub task: TaskId,
    pub state: TaskState,
}

impl Coded for TaskFinished {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskFinished
    }

    fn details(&self) -> Details {
        let precondition = (format!("task:{}", self.task), format!("must not be {}", self.state.name()));
        Details { precondition: Some(precondition), ..Details::default() }.with_metadata("state", self.state.name())
    }
}

/// The task has started, so that it cannot be updated.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` has already started: it is {}", state.name())]
pub struct TaskStarted {
    pub task: TaskId,
    /// RUNNING; WAITING or QUEUED before a further attempt.
    pub state: TaskState,
}

impl Coded for TaskStarted {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskStarted
    }

    fn details(&self) -> Details {
        let precondition = (format!("task:{}", self.task), "must not have started".to_owned());
        Details { precondition: Some(precondition), ..Details::default() }.with_metadata("state", self.state.name())
    }
}

/// The task has not ended, so that it cannot be retried.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` has not ended: it is {}", state.name())]
pub struct TaskNotFinished {
    pub task: TaskId,
    pub state: TaskState,
}

impl Coded for TaskNotFinished {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskNotFinished
    }

    fn details(&self) -> Details {
        let precondition = (format!("task:{}", self.task), "must have ended".to_owned());
        Details { precondition: Some(precondition), ..Details::default() }.with_metadata("state", self.state.name())
    }
}
