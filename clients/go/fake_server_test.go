package lineshaft_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// maxResultBytes is the limit of the played server.
const maxResultBytes = 8 << 20

// fakeServer lets a test play the server of a worker, message by message.
type fakeServer struct {
	lineshaftv1.UnimplementedWorkerServiceServer
	lineshaftv1.UnimplementedTaskServiceServer
	t        testing.TB
	address  string
	sessions chan *fakeSession
	// Every task finishes when this is closed.
	finish chan struct{}
}

// fakeSession is one Work stream.
type fakeSession struct {
	t      testing.TB
	hello  *lineshaftv1.WorkerHello
	stream grpc.BidiStreamingServer[lineshaftv1.WorkRequest, lineshaftv1.WorkResponse]
	// Reports of the worker without heartbeats; closed at the end of the stream.
	reports chan *lineshaftv1.WorkerMessage
	// Closed when the worker has closed its side.
	closed chan struct{}
	end    chan error
}

func startFakeServer(t testing.TB) *fakeServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeServer{t: t, address: listener.Addr().String(), sessions: make(chan *fakeSession, 10), finish: make(chan struct{})}
	server := grpc.NewServer()
	lineshaftv1.RegisterWorkerServiceServer(server, fake)
	lineshaftv1.RegisterTaskServiceServer(server, fake)
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return fake
}

func (f *fakeServer) WaitTask(
	ctx context.Context, request *lineshaftv1.WaitTaskRequest,
) (*lineshaftv1.WaitTaskResponse, error) {
	select {
	case <-f.finish:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	task := &lineshaftv1.Task{TaskId: request.TaskId, State: lineshaftv1.TaskState_TASK_STATE_COMPLETED}
	return &lineshaftv1.WaitTaskResponse{Task: task, Finished: true}, nil
}

func (f *fakeServer) Work(stream grpc.BidiStreamingServer[lineshaftv1.WorkRequest, lineshaftv1.WorkResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	session := &fakeSession{
		t: f.t, hello: first.Hello, stream: stream, reports: make(chan *lineshaftv1.WorkerMessage, 1000),
		closed: make(chan struct{}), end: make(chan error, 1),
	}
	go session.receive()
	f.sessions <- session
	select {
	case err := <-session.end:
		return err
	case <-session.closed:
		return nil
	case <-stream.Context().Done():
		return nil
	}
}

func (s *fakeSession) receive() {
	defer close(s.reports)
	for {
		request, err := s.stream.Recv()
		if err != nil {
			if err == io.EOF {
				close(s.closed)
			}
			return
		}
		for _, message := range request.Messages {
			if message.GetHeartbeat() == nil {
				s.reports <- message
			}
		}
	}
}

// next returns the next stream, without an answer to the introduction.
func (f *fakeServer) next() *fakeSession {
	f.t.Helper()
	select {
	case session := <-f.sessions:
		return session
	case <-time.After(testTimeout):
		f.t.Fatal("the worker did not connect")
		return nil
	}
}

// accept welcomes the worker on the next stream.
func (f *fakeServer) accept(stale ...string) *fakeSession {
	f.t.Helper()
	session := f.next()
	session.welcome(time.Minute, stale...)
	return session
}

func (s *fakeSession) welcome(interval time.Duration, stale ...string) {
	s.t.Helper()
	err := s.stream.Send(&lineshaftv1.WorkResponse{Welcome: &lineshaftv1.WorkerWelcome{
		Pool: "remote", Lease: durationpb.New(time.Minute), HeartbeatInterval: durationpb.New(interval), Stale: stale,
		MaxResultBytes: maxResultBytes,
	}})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeSession) send(messages ...*lineshaftv1.ServerMessage) {
	s.t.Helper()
	if err := s.stream.Send(&lineshaftv1.WorkResponse{Messages: messages}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeSession) assign(token, handler, payload string) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_Assigned{Assigned: &lineshaftv1.AttemptAssigned{
		Token: token, TaskId: "task-" + token, Handler: handler, Attempt: 1,
		Payload:     &lineshaftv1.Payload{Kind: &lineshaftv1.Payload_Data{Data: []byte(payload)}, ContentType: "application/json"},
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Labels:      map[string]string{"color": "red"},
	}}})
}

// assignLarge assigns an attempt whose payload follows in chunks.
func (s *fakeSession) assignLarge(token, handler string, payloadBytes int) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_Assigned{Assigned: &lineshaftv1.AttemptAssigned{
		Token: token, Handler: handler, Payload: &lineshaftv1.Payload{ContentType: "application/octet-stream"},
		PayloadBytes: int64(payloadBytes),
	}}})
}

func (s *fakeSession) chunk(token string, offset int, data []byte) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_Chunk{
		Chunk: &lineshaftv1.AttemptChunk{Token: token, Offset: int64(offset), Data: data},
	}})
}

func (s *fakeSession) requestResult(token string) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_ResultRequested{
		ResultRequested: &lineshaftv1.ResultRequested{Token: token},
	}})
}

func (s *fakeSession) cancel(token string, reason lineshaftv1.StopReason) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_Cancel{
		Cancel: &lineshaftv1.AttemptCancel{Token: token, Reason: reason},
	}})
}

func (s *fakeSession) settle(tokens ...string) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_Settled{
		Settled: &lineshaftv1.AttemptsSettled{Tokens: tokens},
	}})
}

func (s *fakeSession) resume(token string) {
	s.t.Helper()
	s.send(&lineshaftv1.ServerMessage{Kind: &lineshaftv1.ServerMessage_Resumed{
		Resumed: &lineshaftv1.AttemptResumed{Token: token},
	}})
}

// report returns the next report of the worker.
func (s *fakeSession) report() *lineshaftv1.WorkerMessage {
	s.t.Helper()
	select {
	case message, ok := <-s.reports:
		if !ok {
			s.t.Fatal("the stream has ended")
		}
		return message
	case <-time.After(testTimeout):
		s.t.Fatal("the worker sent nothing")
		return nil
	}
}

// accepted expects that an attempt begins.
func (s *fakeSession) accepted(token string) {
	s.t.Helper()
	if message := s.report(); message.GetAccepted().GetToken() != token {
		s.t.Fatalf("the worker sent %v, not that %s begins", message, token)
	}
}

// finished expects the end of an attempt, and acknowledges it.
func (s *fakeSession) finished(token string) *lineshaftv1.AttemptFinished {
	s.t.Helper()
	message := s.report()
	if message.GetFinished().GetToken() != token {
		s.t.Fatalf("the worker sent %v, not the end of %s", message, token)
	}
	s.settle(token)
	return message.GetFinished()
}

// disconnect ends the stream.
func (s *fakeSession) disconnect(err error) {
	s.end <- err
}
