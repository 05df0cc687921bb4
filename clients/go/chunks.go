package lineshaft

import (
	"context"
	"fmt"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// inlineBytesMax is the largest result that is sent as a whole; larger ones travel in chunks.
	inlineBytesMax = 1 << 20
	// chunkBytes is the size of these parts.
	chunkBytes = 64 << 10
	// wholeResultBytesMax is the largest result for a server that receives no chunks.
	wholeResultBytesMax = 8 << 20
)

// incomingPayload is an attempt whose payload has not arrived completely on this stream.
type incomingPayload struct {
	assigned *lineshaftv1.AttemptAssigned
	data     []byte
}

// addChunk adds the next part of a payload. It returns the attempt if it was the last part. A part for an attempt that was
// cancelled is ignored.
func (s *workerStream) addChunk(chunk *lineshaftv1.AttemptChunk) (*lineshaftv1.AttemptAssigned, error) {
	incoming := s.incoming[chunk.Token]
	if incoming == nil {
		return nil, nil
	}
	have, end := int64(len(incoming.data)), int64(len(incoming.data)+len(chunk.Data))
	if chunk.Offset != have || end > incoming.assigned.PayloadBytes {
		return nil, fmt.Errorf("the server sent bytes %d to %d of a payload after %d bytes", chunk.Offset, end, have)
	}
	incoming.data = append(incoming.data, chunk.Data...)
	if end < incoming.assigned.PayloadBytes {
		return nil, nil
	}
	delete(s.incoming, chunk.Token)
	incoming.assigned.Payload = &lineshaftv1.Payload{
		Kind: &lineshaftv1.Payload_Data{Data: incoming.data}, ContentType: incoming.assigned.Payload.GetContentType(),
	}
	return incoming.assigned, nil
}

// resultMax returns the largest result that the server receives.
func (w *Worker) resultMax() int {
	if w.chunkedMax > 0 {
		return w.chunkedMax
	}
	return wholeResultBytesMax
}

// finishedMessage reports an end. The bytes of a large result follow when the server requests them.
func (w *Worker) finishedMessage(finished *lineshaftv1.AttemptFinished) *lineshaftv1.WorkerMessage {
	if result := finished.GetResult(); w.chunkedMax > 0 && len(result.GetData()) > inlineBytesMax {
		finished = &lineshaftv1.AttemptFinished{
			Token:       finished.Token,
			Outcome:     &lineshaftv1.AttemptFinished_Result{Result: &lineshaftv1.Payload{ContentType: result.ContentType}},
			CpuTime:     finished.CpuTime,
			ResultBytes: int64(len(result.GetData())),
			Artifacts:   finished.Artifacts,
		}
	}
	return &lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Finished{Finished: finished}}
}

// stoppedBeforeStart ends an attempt that was cancelled before its payload was complete.
func (w *Worker) stoppedBeforeStart(assigned *lineshaftv1.AttemptAssigned) {
	finished := &lineshaftv1.AttemptFinished{
		Token: assigned.Token,
		Outcome: &lineshaftv1.AttemptFinished_Stopped{Stopped: &lineshaftv1.AttemptStopped{
			Method: lineshaftv1.StopMethod_STOP_METHOD_NEVER_STARTED,
		}},
	}
	attempt := &Attempt{worker: w, assigned: assigned, finished: finished}
	attempt.ctx, attempt.cancel = context.WithCancelCause(context.Background())
	attempt.cancel(ErrCancelled)
	w.attempts[assigned.Token] = attempt
	w.outbox.post(w.finishedMessage(finished))
}

// transfer is a result of which a part was sent.
type transfer struct {
	token  string
	data   []byte
	offset int
}

// transfer sends a result in chunks, which other reports may pass.
func (o *outbox) transfer(token string, data []byte) {
	for _, other := range o.transfers {
		if other.token == token {
			return
		}
	}
	o.transfers = append(o.transfers, transfer{token, data, 0})
	o.wake()
}

// takeChunk returns the next part of a result; they take turns.
func (o *outbox) takeChunk() []*lineshaftv1.WorkerMessage {
	if len(o.transfers) == 0 {
		return nil
	}
	next := o.transfers[0]
	o.transfers = o.transfers[1:]
	end := min(next.offset+chunkBytes, len(next.data))
	chunk := &lineshaftv1.AttemptChunk{Token: next.token, Offset: int64(next.offset), Data: next.data[next.offset:end]}
	if next.offset = end; end < len(next.data) {
		o.transfers = append(o.transfers, next)
	}
	if len(o.transfers) > 0 {
		o.wake()
	}
	return []*lineshaftv1.WorkerMessage{{Kind: &lineshaftv1.WorkerMessage_Chunk{Chunk: chunk}}}
}
