package lineshaft

import (
	"context"
	"errors"
	"io"
	"iter"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// List returns the tasks that match the filter, the newest submission first, without their payloads and results. A nil filter
// matches all tasks that the caller may read. An error is the last element.
func (c *Client) List(ctx context.Context, filter *Filter) iter.Seq2[*TaskInfo, error] {
	return func(yield func(*TaskInfo, error) bool) {
		request := &lineshaftv1.ListTasksRequest{Filter: filter, PageSize: groupMax}
		for {
			page, err := c.page(ctx, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, info := range page.Tasks {
				if !yield(info, nil) {
					return
				}
			}
			if request.PageToken = page.NextPageToken; request.PageToken == "" {
				return
			}
		}
	}
}

// page reads one page of a list.
func (c *Client) page(
	ctx context.Context, request *lineshaftv1.ListTasksRequest,
) (*lineshaftv1.ListTasksResponse, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return retry(ctx, func(ctx context.Context) (*lineshaftv1.ListTasksResponse, error) {
		return c.tasks.ListTasks(ctx, request)
	})
}

// WatchOption sets something about a watch.
type WatchOption func(*lineshaftv1.WatchTasksRequest)

// ResumeAfter continues after the event with this resume token. No event is lost or repeated.
func ResumeAfter(token string) WatchOption {
	return func(r *lineshaftv1.WatchTasksRequest) { r.ResumeToken = token }
}

// Watch returns the state changes of the tasks that match the filter, in their order and each once, from now on or from
// [ResumeAfter]. A nil filter matches all tasks that the caller may read.
//
// After a broken connection it resumes by itself, without losing or repeating an event, until the context ends. The last
// element has the error. Its reason is REVISION_COMPACTED if the store no longer has the next event.
//
//	for event, err := range client.Watch(ctx, &lineshaft.Filter{Handler: "resize"}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(event.TaskId, event.State)
//	}
func (c *Client) Watch(ctx context.Context, filter *Filter, options ...WatchOption) iter.Seq2[*Event, error] {
	request := &lineshaftv1.WatchTasksRequest{Filter: filter}
	for _, option := range options {
		option(request)
	}
	return func(yield func(*Event, error) bool) {
		// With a token from the first moment on, a connection that breaks before the first event loses nothing.
		if request.ResumeToken == "" {
			page, err := c.page(ctx, &lineshaftv1.ListTasksRequest{Filter: filter, PageSize: 1})
			if err != nil {
				yield(nil, err)
				return
			}
			request.ResumeToken = page.ResumeToken
		}
		if err := c.watch(ctx, request, func(event *Event) bool { return yield(event, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

// Watch returns the state changes of the task until it is finished, in their order and each once: all of them if this client
// has submitted it, else those from now on. It resumes after a broken connection like [Client.Watch].
func (t *Task) Watch(ctx context.Context) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		request := &lineshaftv1.WatchTasksRequest{Filter: &Filter{TaskIds: []string{t.id}}, ResumeToken: t.resumeToken}
		if t.resumeToken == "" {
			page, err := t.client.page(ctx, &lineshaftv1.ListTasksRequest{Filter: request.Filter, PageSize: 1})
			if err == nil && len(page.Tasks) == 0 {
				err = notFound(t.id)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if IsFinal(page.Tasks[0].State) {
				return
			}
			request.ResumeToken = page.ResumeToken
		}
		err := t.client.watch(ctx, request, func(event *Event) bool {
			return yield(event, nil) && !IsFinal(event.State)
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// watch passes events on until `see` returns false; an error is why the watch cannot go on. The token of the request advances.
func (c *Client) watch(ctx context.Context, request *lineshaftv1.WatchTasksRequest, see func(*Event) bool) error {
	var pause retryDelay
	for {
		err := c.watchOnce(ctx, request, &pause, see)
		if err == nil {
			return nil
		}
		var known *Error
		if errors.As(err, &known) && known.Metadata["resume_token"] != "" {
			request.ResumeToken = known.Metadata["resume_token"]
		}
		if errors.Is(err, io.EOF) {
			err = pause.sleep(ctx, 0)
		} else if pause.again(ctx, err) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
}

// watchOnce passes on the events of one stream. It returns nil if `see` returned false, else how the stream ended.
func (c *Client) watchOnce(
	ctx context.Context, request *lineshaftv1.WatchTasksRequest, pause *retryDelay, see func(*Event) bool,
) error {
	stream, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := c.tasks.WatchTasks(stream, request)
	if err != nil {
		return fromGRPC(ctx, err)
	}
	for {
		response, err := watch.Recv()
		if errors.Is(err, io.EOF) {
			return err
		}
		if err != nil {
			return fromGRPC(ctx, err)
		}
		*pause = retryDelay{}
		switch kind := response.Kind.(type) {
		case *lineshaftv1.WatchTasksResponse_Progress:
			request.ResumeToken = kind.Progress.ResumeToken
		case *lineshaftv1.WatchTasksResponse_Event:
			request.ResumeToken = kind.Event.ResumeToken
			if !see(kind.Event) {
				return nil
			}
		}
	}
}
