package lineshaft

import (
	"context"
	"errors"
	"io"
	"iter"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// Parent is a task that had to end before the task of an attempt.
type Parent struct {
	TaskID string
	State  State
	// Result of the parent; empty unless the state is Completed.
	Result Payload
}

// Parents returns the parents of the task in the order of its submission, with their results. Each result is read when the loop
// asks for it, so that they need not fit into memory together. After a broken connection it goes on where it was, until the
// context ends.
func (a *Attempt) Parents(ctx context.Context) iter.Seq2[*Parent, error] {
	return func(yield func(*Parent, error) bool) {
		if a == nil {
			return
		}
		request := &lineshaftv1.ReadParentResultsRequest{TaskId: a.assigned.TaskId, Token: a.assigned.Token}
		var pause retryDelay
		for {
			err := a.readParents(ctx, request, func(parent *Parent) bool {
				pause = retryDelay{}
				return yield(parent, nil)
			})
			if err == nil {
				return
			}
			if err = fromGRPC(ctx, err); !pause.again(ctx, err) {
				yield(nil, err)
				return
			}
		}
	}
}

// readParents passes on the parents that the request does not skip, which it adds to them. It returns nil when all were read or
// the loop has ended.
func (a *Attempt) readParents(
	ctx context.Context, request *lineshaftv1.ReadParentResultsRequest, each func(*Parent) bool,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.worker.service.ReadParentResults(ctx, request)
	if err != nil {
		return err
	}
	var parent *Parent
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, part := range message.Results {
			if parent == nil {
				result := Payload{ContentType: part.GetResult().GetContentType()}
				parent = &Parent{TaskID: part.TaskId, State: part.State, Result: result}
			}
			parent.Result.Data = append(parent.Result.Data, part.GetResult().GetData()...)
			if part.HasMore {
				continue
			}
			request.Skip++
			if !each(parent) {
				return nil
			}
			parent = nil
		}
	}
}
