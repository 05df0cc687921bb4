package lineshaft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// Reasons of an [Error] that programs often branch on. docs/errors.md lists all of them.
const (
	ReasonInvalidField     = "INVALID_FIELD"
	ReasonUnknownHandler   = "UNKNOWN_HANDLER"
	ReasonUnknownPool      = "UNKNOWN_POOL"
	ReasonTaskNotFound     = "TASK_NOT_FOUND"
	ReasonTaskExists       = "TASK_EXISTS"
	ReasonTaskFinished     = "TASK_FINISHED"
	ReasonTaskStarted      = "TASK_STARTED"
	ReasonTaskNotFinished  = "TASK_NOT_FINISHED"
	ReasonRequestIDReused  = "REQUEST_ID_REUSED"
	ReasonUniqueKeyTaken   = "UNIQUE_KEY_TAKEN"
	ReasonParentNotFound   = "PARENT_NOT_FOUND"
	ReasonArtifactNotFound = "ARTIFACT_NOT_FOUND"
	ReasonQueueFull        = "QUEUE_FULL"
	ReasonOverloaded       = "OVERLOADED"
	ReasonRateLimited      = "RATE_LIMITED"
	ReasonQuotaExceeded    = "QUOTA_EXCEEDED"
	ReasonUnauthenticated  = "UNAUTHENTICATED"
	ReasonPermissionDenied = "PERMISSION_DENIED"
)

// Error is an error of a call. Branch on its Reason, not on its Message.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is the stable name of the error, such as [ReasonQueueFull]. Empty if the call did not reach the server.
	Reason string
	// Message is for people.
	Message string
	// Metadata has details, such as the name of the pool.
	Metadata map[string]string
	// Fields are the invalid fields of an INVALID_FIELD.
	Fields []InvalidField
	// RetryAfter is the delay after which a retry can succeed; 0 if the server gave none.
	RetryAfter time.Duration
}

// InvalidField is one invalid field of a request.
type InvalidField struct {
	// Path of the field, such as `labels["color"]`.
	Path string
	// Description of what is wrong.
	Description string
}

func (e *Error) Error() string {
	name := cmp.Or(e.Reason, e.Code.String())
	if e.Message == "" {
		return name
	}
	return fmt.Sprintf("%s (%s)", e.Message, name)
}

// GRPCStatus lets [status.FromError] and [status.Code] work with this error.
func (e *Error) GRPCStatus() *status.Status {
	return status.New(e.Code, e.Message)
}

// TaskFailedError is returned for the result of a task that failed.
type TaskFailedError struct {
	// TaskID of the task.
	TaskID string
	// Failure of the last attempt.
	*Failure
}

func (e *TaskFailedError) Error() string {
	return fmt.Sprintf("task %s failed: %s (%s)", e.TaskID, e.Failure.GetMessage(), reasonName(e.Failure.GetReason()))
}

// TaskCancelledError is returned for the result of a task that was cancelled.
type TaskCancelledError struct {
	// TaskID of the task.
	TaskID string
	// Receipt of the cancellation.
	Receipt *CancelReceipt
}

func (e *TaskCancelledError) Error() string {
	if reason := e.Receipt.GetReason(); reason != "" {
		return fmt.Sprintf("task %s was cancelled: %s", e.TaskID, reason)
	}
	return fmt.Sprintf("task %s was cancelled", e.TaskID)
}

// errClosed is returned by the calls of a closed client.
var errClosed = errors.New("the client is closed")

func reasonName(reason lineshaftv1.FailureReason) string {
	const prefix = "FAILURE_REASON_"
	return reason.String()[len(prefix):]
}

// fromGRPC converts the error of a call. If the context of the caller has ended, it wraps the cause of that.
func fromGRPC(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return contextError(ctx, err)
	}
	known, isStatus := status.FromError(err)
	if !isStatus {
		return err
	}
	result := &Error{Code: known.Code(), Message: known.Message()}
	for _, detail := range known.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			result.Reason, result.Metadata = detail.Reason, detail.Metadata
		case *errdetails.BadRequest:
			for _, field := range detail.FieldViolations {
				result.Fields = append(result.Fields, InvalidField{field.Field, field.Description})
			}
		case *errdetails.RetryInfo:
			result.RetryAfter = detail.RetryDelay.AsDuration()
		}
	}
	return result
}

// contextError is the cause of the end of a context, with the last error that the call had met.
func contextError(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	code := status.Code(last)
	if last == nil || code == codes.Canceled || code == codes.DeadlineExceeded || errors.Is(last, cause) {
		return cause
	}
	return fmt.Errorf("%w; last error: %w", cause, last)
}

// fromRejection converts the rejection of one task of a stream.
func fromRejection(rejection *lineshaftv1.Rejection) *Error {
	result := &Error{
		Code:     codes.Code(rejection.Code),
		Reason:   rejection.Reason,
		Message:  rejection.Message,
		Metadata: rejection.Metadata,
	}
	if rejection.Field != "" {
		result.Fields = []InvalidField{{rejection.Field, rejection.Message}}
	}
	if rejection.RetryAfter != nil {
		result.RetryAfter = rejection.RetryAfter.AsDuration()
	}
	return result
}
