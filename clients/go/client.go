// Package lineshaft submits tasks to a Lineshaft server and runs them in this program.
//
// A [Client] submits tasks, waits for their results, watches and cancels them. A [Worker] runs Go functions as handlers. Both
// are safe for use by several goroutines at the same time.
package lineshaft

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// callTimeout is the time limit of a call whose context has no deadline. Waiting for a task has no limit.
const callTimeout = 30 * time.Second

// Client submits tasks and follows them. One client for each program is enough: calls that are made at the same time share a
// connection, submissions share a stream, and waits share a watch.
type Client struct {
	connection *grpc.ClientConn
	tasks      lineshaftv1.TaskServiceClient
	artifacts  lineshaftv1.ArtifactServiceClient
	namespace  string
	trace      func(context.Context) map[string]string

	ctx    context.Context
	cancel context.CancelCauseFunc

	submitter *submitter
	follower  *follower
}

// NewClient returns a client of the server at an address such as "127.0.0.1:7070", "dns:///lineshaft:7070" or
// "https://lineshaft.example.com". If the address is empty, it is that of the environment variable LINESHAFT_SERVER, else
// 127.0.0.1:7070.
//
// Unless options set them, the credentials come from the environment, under the names that the command line reads too:
// LINESHAFT_TOKEN or LINESHAFT_TOKEN_FILE, LINESHAFT_TLS_CA, LINESHAFT_TLS_CERT and LINESHAFT_TLS_KEY.
//
// NewClient does not connect; the first call does.
func NewClient(address string, options ...ClientOption) (*Client, error) {
	address = cmp.Or(address, os.Getenv("LINESHAFT_SERVER"), "127.0.0.1:7070")
	var settings clientSettings
	for _, option := range options {
		option(&settings)
	}
	connection, err := settings.connect(address)
	if err != nil {
		return nil, fmt.Errorf("server address %q: %w", address, err)
	}
	client := &Client{
		connection: connection,
		tasks:      lineshaftv1.NewTaskServiceClient(connection),
		artifacts:  lineshaftv1.NewArtifactServiceClient(connection),
		namespace:  settings.namespace,
		trace:      settings.trace,
	}
	client.ctx, client.cancel = context.WithCancelCause(context.Background())
	client.submitter = newSubmitter(client.ctx, client.tasks)
	client.follower = newFollower(client.ctx, client.tasks)
	return client, nil
}

// Close ends the connection. Calls that are under way fail. Tasks are not affected.
func (c *Client) Close() error {
	c.cancel(errClosed)
	return c.connection.Close()
}

// Connection returns the connection, for the generated clients of package lineshaftv1 such as
// [lineshaftv1.NewPoolServiceClient].
func (c *Client) Connection() *grpc.ClientConn {
	return c.connection
}

// Task returns the task with this ID, which may have been submitted by another program. It makes no call.
func (c *Client) Task(id string) *Task {
	return newTask(c, id)
}

// limited returns the context with the time limit of a call, unless it has a deadline.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}
