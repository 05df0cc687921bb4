package lineshaft

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lineshaftv1 "example.com/my-client/gen/lineshaft/v1"
)

const pause = 200 * time.Millisecond

// Watch calls `see` with each matching event once and in order, until `see` returns false. After a broken
// connection it resumes with the last token it received.
func Watch(
	ctx context.Context, tasks lineshaftv1.TaskServiceClient, filter *lineshaftv1.TaskFilter, resumeToken string,
	see func(*lineshaftv1.TaskEvent) bool,
) error {
	for {
		done, err := watchOnce(ctx, tasks, filter, &resumeToken, see)
		if done {
			return nil
		}
		// OutOfRange: the events are no longer stored; start again with IncludeSnapshot.
		if status.Code(err) != codes.Unavailable && !errors.Is(err, io.EOF) {
			return err
		}
		time.Sleep(pause)
	}
}

func watchOnce(
	ctx context.Context, tasks lineshaftv1.TaskServiceClient, filter *lineshaftv1.TaskFilter, resumeToken *string,
	see func(*lineshaftv1.TaskEvent) bool,
) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &lineshaftv1.WatchTasksRequest{Filter: filter, ResumeToken: *resumeToken}
	steps, err := tasks.WatchTasks(ctx, request, grpc.WaitForReady(true))
	if err != nil {
		return false, err
	}
	for {
		step, err := steps.Recv()
		if err != nil {
			return false, err
		}
		switch kind := step.Kind.(type) {
		case *lineshaftv1.WatchTasksResponse_Event:
			*resumeToken = kind.Event.ResumeToken
			if !see(kind.Event) {
				return true, nil
			}
		case *lineshaftv1.WatchTasksResponse_Progress:
			*resumeToken = kind.Progress.ResumeToken
		}
	}
}
