package lineshaft_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

const benchConfig = `
[[pool]]
name = "default"
size = 2
queue_limit = 1000000
`

// each runs `work` b.N times in this many goroutines and reports the rate.
func each(b *testing.B, callers int, work func() error) {
	b.ResetTimer()
	var all sync.WaitGroup
	var next atomic.Int64
	for range callers {
		all.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := work(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func BenchmarkSubmit(b *testing.B) {
	for _, callers := range []int{1, 16, 256, 2000} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			client, ctx := startServer(b, benchConfig).client(), testContext(b)
			each(b, callers, func() error {
				_, err := client.Submit(ctx, "compute", 1)
				return err
			})
		})
	}
}

func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 16, 256, 2000} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			client, ctx := startServer(b, benchConfig).client(), testContext(b)
			each(b, callers, func() error {
				_, err := lineshaft.Call[sum](ctx, client, "compute", 1)
				return err
			})
		})
	}
}

func BenchmarkMap(b *testing.B) {
	client, ctx := startServer(b, benchConfig).client(), testContext(b)
	payloads := make([]int, 10_000)
	for b.Loop() {
		if _, err := lineshaft.Map[sum](ctx, client, "compute", payloads); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(payloads))/b.Elapsed().Seconds(), "tasks/s")
}

func BenchmarkWorker(b *testing.B) {
	for _, callers := range []int{1, 16, 256, 2000} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			server, ctx := startServer(b, remoteConfig), testContext(b)
			client := server.client()
			workFor(b, server.address, func(worker *lineshaft.Worker) {
				lineshaft.Handle(worker, "square", func(_ context.Context, in request) (response, error) {
					return response{in.Number * in.Number}, nil
				})
			}, lineshaft.WithConcurrency(1000))
			each(b, callers, func() error {
				_, err := lineshaft.Call[response](ctx, client, "square", request{3})
				return err
			})
		})
	}
}
