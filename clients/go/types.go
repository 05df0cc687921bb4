package lineshaft

import lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"

// Messages of the contract that this package returns unchanged.
type (
	// TaskInfo describes a task at one moment.
	TaskInfo = lineshaftv1.Task
	// Event is one state change of one task.
	Event = lineshaftv1.TaskEvent
	// Filter selects tasks. A task matches if it matches every field that is set.
	Filter = lineshaftv1.TaskFilter
	// Artifact describes a file that a task has left.
	Artifact = lineshaftv1.Artifact
	// Failure describes why an attempt or a task failed.
	Failure = lineshaftv1.Failure
	// CancelReceipt records a cancellation: who requested it, when the work stopped, and how.
	CancelReceipt = lineshaftv1.CancelReceipt
	// RetryPolicy sets when and how often a failed attempt is retried. Unset fields take the values of the handler.
	RetryPolicy = lineshaftv1.RetryPolicy
	// TaskLimit limits how many tasks with the same key run at once, how many start in an interval, or both.
	TaskLimit = lineshaftv1.TaskLimit
	// StartRate is how many tasks start in an interval, by default of a second.
	StartRate = lineshaftv1.StartRate
)

// State of a task. Completed, Failed and Cancelled are final.
type State = lineshaftv1.TaskState

// States of a task.
const (
	Waiting   = lineshaftv1.TaskState_TASK_STATE_WAITING
	Queued    = lineshaftv1.TaskState_TASK_STATE_QUEUED
	Running   = lineshaftv1.TaskState_TASK_STATE_RUNNING
	Completed = lineshaftv1.TaskState_TASK_STATE_COMPLETED
	Failed    = lineshaftv1.TaskState_TASK_STATE_FAILED
	Cancelled = lineshaftv1.TaskState_TASK_STATE_CANCELLED
)

// Priority of a task. No worker starts a task while one of a higher priority is queued in the same pool.
type Priority = lineshaftv1.Priority

// Priorities; the default is Normal.
const (
	Low      = lineshaftv1.Priority_PRIORITY_LOW
	Normal   = lineshaftv1.Priority_PRIORITY_NORMAL
	High     = lineshaftv1.Priority_PRIORITY_HIGH
	Critical = lineshaftv1.Priority_PRIORITY_CRITICAL
)

// CancelMode is how a running task is cancelled.
type CancelMode = lineshaftv1.CancelMode

// Modes of a cancellation; the default is Graceful.
const (
	// Graceful asks the handler to stop, and stops it by force after the grace period.
	Graceful = lineshaftv1.CancelMode_CANCEL_MODE_GRACEFUL
	// Force stops the handler by force immediately.
	Force = lineshaftv1.CancelMode_CANCEL_MODE_FORCE
)

// OutputStream is one of the two output streams of an attempt.
type OutputStream = lineshaftv1.OutputStream

// Output streams.
const (
	Stdout = lineshaftv1.OutputStream_OUTPUT_STREAM_STDOUT
	Stderr = lineshaftv1.OutputStream_OUTPUT_STREAM_STDERR
)

// Durability is when a submission is acknowledged.
type Durability = lineshaftv1.Durability

// Durabilities of a submission; the default is that of the pool.
const (
	// Fsync acknowledges a task after it is synced to disk.
	Fsync = lineshaftv1.Durability_DURABILITY_FSYNC
	// Memory acknowledges a task after it is written; a power failure can lose it, a crash of the server cannot.
	Memory = lineshaftv1.Durability_DURABILITY_MEMORY
)

// OnParentFailure is what a task does when one of its parents has failed or was cancelled.
type OnParentFailure = lineshaftv1.OnParentFailure

// Rules of [WithParents].
const (
	// ParentFailureFails fails the task at once.
	ParentFailureFails = lineshaftv1.OnParentFailure_ON_PARENT_FAILURE_FAIL
	// ParentFailureRuns starts the task once all parents have ended.
	ParentFailureRuns = lineshaftv1.OnParentFailure_ON_PARENT_FAILURE_RUN
	// ParentFailureCancels cancels the task at once.
	ParentFailureCancels = lineshaftv1.OnParentFailure_ON_PARENT_FAILURE_CANCEL
)

// OnUniqueConflict is what a submission does if a task with the same unique key has not ended.
type OnUniqueConflict = lineshaftv1.OnUniqueConflict

// Rules of [WithUniqueKey].
const (
	// UniqueConflictFails refuses the submission with UNIQUE_KEY_TAKEN.
	UniqueConflictFails = lineshaftv1.OnUniqueConflict_ON_UNIQUE_CONFLICT_FAIL
	// UniqueConflictUsesExisting adds nothing and returns that task.
	UniqueConflictUsesExisting = lineshaftv1.OnUniqueConflict_ON_UNIQUE_CONFLICT_USE_EXISTING
	// UniqueConflictReplacesQueued adds the new task and cancels the other one unless it has started.
	UniqueConflictReplacesQueued = lineshaftv1.OnUniqueConflict_ON_UNIQUE_CONFLICT_REPLACE_QUEUED
)

// FailureReason is why an attempt or a task failed.
type FailureReason = lineshaftv1.FailureReason

// Reasons of a failure.
const (
	HandlerError   = lineshaftv1.FailureReason_FAILURE_REASON_HANDLER_ERROR
	Timeout        = lineshaftv1.FailureReason_FAILURE_REASON_TIMEOUT
	Panic          = lineshaftv1.FailureReason_FAILURE_REASON_PANIC
	Killed         = lineshaftv1.FailureReason_FAILURE_REASON_KILLED
	OutOfMemory    = lineshaftv1.FailureReason_FAILURE_REASON_OUT_OF_MEMORY
	WorkerLost     = lineshaftv1.FailureReason_FAILURE_REASON_WORKER_LOST
	Expired        = lineshaftv1.FailureReason_FAILURE_REASON_EXPIRED
	ResultTooLarge = lineshaftv1.FailureReason_FAILURE_REASON_RESULT_TOO_LARGE
	InvalidPayload = lineshaftv1.FailureReason_FAILURE_REASON_INVALID_PAYLOAD
	StackOverflow  = lineshaftv1.FailureReason_FAILURE_REASON_STACK_OVERFLOW
)

// IsFinal reports whether a task in this state is finished: completed, failed or cancelled.
func IsFinal(state State) bool {
	return state == Completed || state == Failed || state == Cancelled
}
