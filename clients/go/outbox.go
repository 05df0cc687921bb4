package lineshaft

import (
	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// requestMax and requestBytesMax bound the reports in one message.
	requestMax      = 10_000
	requestBytesMax = 4 << 20
	// outputWaitingMax is the number of bytes of output in the outbox at which writers wait.
	outputWaitingMax = 1 << 20
)

// outbox is the reports that a worker has not sent yet, in the order in which they happened. It is guarded by the mutex of the
// worker.
type outbox struct {
	messages []*lineshaftv1.WorkerMessage
	// Results that are sent in chunks.
	transfers []transfer
	// Bytes of output in these messages.
	outputBytes int
	// Attempts with a progress in these messages.
	progressing []*Attempt
	// Has an element when there are messages.
	arrived chan struct{}
	// Closed when there is room for output again; nil while there is.
	room chan struct{}
}

func newOutbox() outbox {
	return outbox{arrived: make(chan struct{}, 1)}
}

// post adds reports.
func (o *outbox) post(messages ...*lineshaftv1.WorkerMessage) {
	o.messages = append(o.messages, messages...)
	if len(o.messages) > 0 {
		o.wake()
	}
}

func (o *outbox) wake() {
	select {
	case o.arrived <- struct{}{}:
	default:
	}
}

// postProgress adds a report, or changes the last one of the attempt if it has not been sent.
func (o *outbox) postProgress(attempt *Attempt, fraction float64, note string) {
	if attempt.progress != nil {
		attempt.progress.Fraction, attempt.progress.Note = fraction, note
		return
	}
	attempt.progress = &lineshaftv1.AttemptProgress{Token: attempt.assigned.Token, Fraction: fraction, Note: note}
	o.progressing = append(o.progressing, attempt)
	o.post(&lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Progress{Progress: attempt.progress}})
}

// postOutput adds output, or returns a channel that is closed when there is room for it.
func (o *outbox) postOutput(attempt *Attempt, stream OutputStream, data []byte) <-chan struct{} {
	if o.outputBytes >= outputWaitingMax {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return o.room
	}
	o.outputBytes += len(data)
	output := &lineshaftv1.AttemptOutput{Token: attempt.assigned.Token, Stream: stream, Data: append([]byte(nil), data...)}
	o.post(&lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Output{Output: output}})
	return nil
}

// take returns the first reports, as many as fit into a message.
func (o *outbox) take() []*lineshaftv1.WorkerMessage {
	count, bytes := 0, 0
	for count < min(len(o.messages), requestMax) && bytes < requestBytesMax {
		message := o.messages[count]
		bytes += len(message.GetFinished().GetResult().GetData()) + len(message.GetOutput().GetData())
		o.outputBytes -= len(message.GetOutput().GetData())
		count++
	}
	taken := o.messages[:count:count]
	if o.messages = o.messages[count:]; len(o.messages) == 0 {
		o.messages = nil
	} else {
		o.wake()
	}
	for _, attempt := range o.progressing {
		attempt.progress = nil
	}
	o.progressing = nil
	if o.room != nil && o.outputBytes < outputWaitingMax {
		close(o.room)
		o.room = nil
	}
	return append(taken, o.takeChunk()...)
}

// reconnect keeps what a new stream has to repeat from the old one: output and progress. The introduction of the worker and
// the state of its attempts replace the other reports.
func (o *outbox) reconnect(isKnown func(token string) bool) {
	messages := o.messages
	o.messages, o.transfers = nil, nil
	for _, message := range messages {
		switch kind := message.Kind.(type) {
		case *lineshaftv1.WorkerMessage_Output:
			if isKnown(kind.Output.Token) {
				o.messages = append(o.messages, message)
			} else {
				o.outputBytes -= len(kind.Output.Data)
			}
		case *lineshaftv1.WorkerMessage_Progress:
			if isKnown(kind.Progress.Token) {
				o.messages = append(o.messages, message)
			}
		}
	}
}
