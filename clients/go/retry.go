package lineshaft

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	retryMin = 50 * time.Millisecond
	retryMax = 2 * time.Second
	// unclearMax is how often a call is repeated after errors that may be final.
	unclearMax = 3
)

// retryDelay is the growing delay between the tries of a call. The zero value is ready to use.
type retryDelay struct {
	delay   time.Duration
	unclear int
}

// again reports whether the call that returned this error is to be made again, and waits until then. It returns false if the
// error is final, or if the context ends before the delay.
func (d *retryDelay) again(ctx context.Context, err error) bool {
	var known *Error
	if ctx.Err() != nil || !errors.As(err, &known) || !isRetryable(err) {
		return false
	}
	if isUnclear(known) {
		d.unclear++
	}
	if d.unclear > unclearMax {
		return false
	}
	return d.sleep(ctx, known.RetryAfter) == nil
}

// sleep waits for the next delay, which is random by a fifth so that clients do not retry in step, or for `least` if that is
// longer. It returns an error if the context ends, at once if its deadline is before the end of the delay.
func (d *retryDelay) sleep(ctx context.Context, least time.Duration) error {
	d.delay = min(max(2*d.delay, retryMin), retryMax)
	delay := max(time.Duration(float64(d.delay)*(0.8+0.4*rand.Float64())), least)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// isRetryable reports whether the same call can succeed later.
func isRetryable(err error) bool {
	var known *Error
	if !errors.As(err, &known) {
		return false
	}
	return known.Code == codes.Unavailable || known.Code == codes.ResourceExhausted && known.RetryAfter > 0 || isUnclear(known)
}

// isUnclear reports whether the error comes from a broken connection or a proxy, or is final: an error of the server has a
// reason.
func isUnclear(err *Error) bool {
	return err.Reason == "" && (err.Code == codes.Unknown || err.Code == codes.Internal || err.Code == codes.Canceled)
}

// retry calls until the call succeeds, its error is final, or the context ends. Only for calls that are safe to repeat.
func retry[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	var pause retryDelay
	for {
		result, err := call(ctx)
		if err == nil {
			return result, nil
		}
		if err = fromGRPC(ctx, err); !pause.again(ctx, err) {
			return result, err
		}
	}
}
