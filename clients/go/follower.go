package lineshaft

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// waitsMax is the number of tasks that are waited for with a call each, which is the fastest way for few.
	waitsMax = 16
	// waitMax limits such a call; a task that takes longer joins a group.
	waitMax = time.Second
	// groupMax is the maximum number of tasks in a filter.
	groupMax = 1000
	// groupsFew is the number of groups above which small ones are merged.
	groupsFew = 4
	// groupsMax is the number of groups at which further tasks have to wait until a group ends.
	groupsMax = 100
)

// follower learns the ends of tasks with few calls.
//
// A few tasks have a WaitTask call each. More of them gather into groups. A group first lists its tasks, which yields the
// results of those that are finished, and then watches the others; it lists again what the watch reports.
type follower struct {
	ctx   context.Context
	tasks lineshaftv1.TaskServiceClient

	mu      sync.Mutex
	queue   []*Task        // to be followed, and in no group
	waits   int            // calls of WaitTask
	forming bool           // a goroutine forms groups; meanwhile further tasks gather
	groups  []*followGroup // with an open watch
	failure error          // of the last call; nil if it succeeded
}

// followGroup is the tasks of one watch.
type followGroup struct {
	cancel context.CancelFunc
	tasks  map[string]*Task // guarded by the mutex of the follower
}

func newFollower(ctx context.Context, tasks lineshaftv1.TaskServiceClient) *follower {
	return &follower{ctx: ctx, tasks: tasks}
}

// follow calls Task.finish when the task is finished.
func (f *follower) follow(task *Task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waits < waitsMax && !f.forming {
		f.waits++
		go f.wait(task)
		return
	}
	f.enqueue(task)
}

func (f *follower) enqueue(tasks ...*Task) {
	f.queue = append(f.queue, tasks...)
	if len(f.queue) > 0 && !f.forming && len(f.groups) < groupsMax {
		f.forming = true
		go f.form()
	}
}

// unfollow drops a task that is no longer awaited.
func (f *follower) unfollow(task *Task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if group := task.group; group != nil && !task.isAwaited() {
		group.remove(task)
	}
}

func (f *follower) lastFailure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failure
}

func (f *follower) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
}

// wait follows one task with WaitTask.
func (f *follower) wait(task *Task) {
	request := &lineshaftv1.WaitTaskRequest{TaskId: task.id, Timeout: durationpb.New(waitMax)}
	response, err := f.tasks.WaitTask(f.ctx, request)
	if err != nil {
		err = fromGRPC(f.ctx, err)
		if !isRetryable(err) {
			task.finish(nil, err)
		}
	} else if response.Finished {
		task.finish(response.Task, nil)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits--
	f.failure = err
	if info, err := task.end(); info == nil && err == nil && task.isAwaited() {
		f.enqueue(task)
	}
}

// form makes groups of the tasks in the queue until it is empty.
func (f *follower) form() {
	for {
		tasks := f.gather()
		if tasks == nil {
			return
		}
		rest, token, err := f.list(tasks)
		if err == nil && len(rest) > 0 {
			f.open(rest, token)
		}
	}
}

// gather takes tasks from the queue, and those of small groups if there are many groups. It returns nil if there is nothing to
// form.
func (f *follower) gather() map[string]*Task {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 || len(f.groups) >= groupsMax || f.ctx.Err() != nil {
		f.forming = false
		return nil
	}
	tasks := map[string]*Task{}
	var again []*Task
	taken := 0
	for ; taken < len(f.queue) && len(tasks) < groupMax; taken++ {
		task := f.queue[taken]
		if other := tasks[task.id]; other != nil && other != task {
			again = append(again, task)
		} else if task.isAwaited() {
			tasks[task.id] = task
		}
	}
	f.queue = append(again, f.queue[taken:]...)
	for len(f.groups) > groupsFew {
		smallest := slices.MinFunc(f.groups, func(a, b *followGroup) int { return len(a.tasks) - len(b.tasks) })
		if len(smallest.tasks)+len(tasks) > groupMax {
			break
		}
		f.close(smallest)
		for id, task := range smallest.tasks {
			if _, isTaken := tasks[id]; isTaken {
				f.queue = append(f.queue, task)
			} else {
				tasks[id] = task
			}
		}
		smallest.tasks = nil
	}
	return tasks
}

// list reads these tasks, finishes those that are finished or do not exist, and returns the others with the token of a watch
// that continues from here. Errors that may pass are retried; it returns one only when the client is closed.
func (f *follower) list(tasks map[string]*Task) (rest map[string]*Task, token string, err error) {
	if len(tasks) == 0 {
		return nil, "", nil
	}
	rest = maps.Clone(tasks)
	missing := maps.Clone(tasks)
	request := &lineshaftv1.ListTasksRequest{
		Filter:         &Filter{TaskIds: slices.Collect(maps.Keys(tasks))},
		PageSize:       groupMax,
		IncludeResults: true,
	}
	for {
		page, err := f.page(request)
		if f.ctx.Err() != nil {
			return nil, "", context.Cause(f.ctx)
		}
		if err != nil {
			f.divide(tasks, err)
			return nil, "", nil
		}
		if request.PageToken == "" {
			token = page.ResumeToken
		}
		for _, info := range page.Tasks {
			task := find(tasks, info.TaskId)
			if task == nil {
				continue
			}
			delete(missing, task.id)
			if IsFinal(info.State) {
				delete(rest, task.id)
				task.finish(info, nil)
			}
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	for id, task := range missing {
		delete(rest, id)
		task.finish(nil, notFound(id))
	}
	return rest, token, nil
}

// page reads a page, and repeats the call after errors that may pass.
func (f *follower) page(request *lineshaftv1.ListTasksRequest) (*lineshaftv1.ListTasksResponse, error) {
	return retry(f.ctx, func(ctx context.Context) (*lineshaftv1.ListTasksResponse, error) {
		response, err := f.tasks.ListTasks(ctx, request)
		f.note(err)
		return response, err
	})
}

// divide lists and watches both halves of tasks whose list failed, down to the single task that is the cause.
func (f *follower) divide(tasks map[string]*Task, err error) {
	if len(tasks) == 1 {
		for _, task := range tasks {
			task.finish(nil, err)
		}
		return
	}
	half := make(map[string]*Task, len(tasks)/2)
	other := maps.Clone(tasks)
	for id, task := range tasks {
		if len(half) == len(tasks)/2 {
			break
		}
		half[id] = task
		delete(other, id)
	}
	for _, part := range []map[string]*Task{half, other} {
		if rest, token, err := f.list(part); err == nil && len(rest) > 0 {
			f.open(rest, token)
		}
	}
}

// open starts to watch tasks that are not finished.
func (f *follower) open(tasks map[string]*Task, token string) {
	ctx, cancel := context.WithCancel(f.ctx)
	group := &followGroup{cancel: cancel, tasks: tasks}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups = append(f.groups, group)
	for _, task := range tasks {
		task.group = group
		if !task.isAwaited() {
			group.remove(task)
		}
	}
	ids := slices.Collect(maps.Keys(tasks))
	go f.run(ctx, group, ids, token)
}

// run watches a group until its tasks are finished, it was merged into another one, or the watch breaks; then the tasks are
// queued again.
func (f *follower) run(ctx context.Context, group *followGroup, ids []string, token string) {
	defer group.cancel()
	finished := make(chan string, groupMax)
	broken := make(chan error, 1)
	go func() { broken <- f.watch(ctx, ids, token, finished) }()
	for {
		select {
		case id := <-finished:
			f.fetch(group, append(received(finished), id))
		case err := <-broken:
			f.mu.Lock()
			defer f.mu.Unlock()
			if ctx.Err() == nil {
				f.failure = err
			}
			f.close(group)
			f.enqueue(slices.Collect(maps.Values(group.tasks))...)
			return
		}
	}
}

// watch sends the IDs of the tasks that finish to the channel, until the watch ends.
func (f *follower) watch(ctx context.Context, ids []string, token string, finished chan<- string) error {
	watch, err := f.tasks.WatchTasks(ctx, &lineshaftv1.WatchTasksRequest{
		Filter:      &Filter{TaskIds: ids, States: []State{Completed, Failed, Cancelled}},
		ResumeToken: token,
	})
	for err == nil {
		var response *lineshaftv1.WatchTasksResponse
		if response, err = watch.Recv(); err != nil {
			break
		}
		if event := response.GetEvent(); event != nil {
			finished <- event.TaskId
		}
	}
	return fromGRPC(f.ctx, err)
}

// received returns what the channel has now.
func received(ids <-chan string) []string {
	var all []string
	for {
		select {
		case id := <-ids:
			all = append(all, id)
		default:
			return all
		}
	}
}

// fetch reads tasks of a group that have finished.
func (f *follower) fetch(group *followGroup, ids []string) {
	tasks := make(map[string]*Task, len(ids))
	f.mu.Lock()
	for _, id := range ids {
		if task := find(group.tasks, id); task != nil {
			tasks[task.id] = task
		}
	}
	f.mu.Unlock()
	rest, _, err := f.list(tasks)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, task := range tasks {
		group.remove(task)
	}
	f.enqueue(slices.Collect(maps.Values(rest))...)
}

// close ends the watch of a group. Its tasks stay in it.
func (f *follower) close(group *followGroup) {
	group.cancel()
	f.groups = slices.DeleteFunc(f.groups, func(other *followGroup) bool { return other == group })
}

// remove takes a task out of the group and ends the watch if it was the last one.
func (g *followGroup) remove(task *Task) {
	if g.tasks[task.id] == task {
		delete(g.tasks, task.id)
	}
	if task.group == g {
		task.group = nil
	}
	if len(g.tasks) == 0 {
		g.cancel()
	}
}

// find returns the task with this ID. Outside the namespace of the caller the server returns NAMESPACE/ID.
func find(tasks map[string]*Task, id string) *Task {
	if task := tasks[id]; task != nil {
		return task
	}
	_, plain, _ := strings.Cut(id, "/")
	return tasks[plain]
}

func notFound(id string) *Error {
	return &Error{Code: codes.NotFound, Reason: ReasonTaskNotFound, Message: fmt.Sprintf("task %q does not exist", id)}
}
