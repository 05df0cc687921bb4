// Go: Lineshaft, Asynq and River. See ../README.md for the commands that the program has.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	lineshaft "github.com/lineshaft/lineshaft/clients/go"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	waitMax      = time.Minute
	backlogMax   = 2000
	pollInterval = time.Millisecond // of systems that look for tasks in intervals; the least that both accept
)

var (
	ctx            = context.Background()
	address        = os.Getenv("PEER_ADDRESS")
	concurrency, _ = strconv.Atoi(os.Getenv("PEER_CONCURRENCY"))
	doneFile       = must(os.OpenFile(os.Getenv("PEER_DONE"), os.O_RDWR|os.O_APPEND, 0))
	functions      = map[string]func() error{
		"noop":  func() error { return end() },
		"sleep": func() error { time.Sleep(5 * time.Millisecond); return end() },
		"true": func() error {
			if err := exec.Command("/bin/true").Run(); err != nil {
				return err
			}
			return end()
		},
	}
)

func end() error {
	_, err := doneFile.WriteString(".")
	return err
}

func done() int64 { return must(doneFile.Stat()).Size() }

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// system runs tasks by the name of a function.
type system struct {
	submit func(name string) error
	// call waits for the end of the task. Without it, the function is waited for: Asynq and River have no such call.
	call func(name string) error
	work func() error
}

func newLineshaft() system {
	client := must(lineshaft.NewClient(address))
	return system{
		submit: func(name string) error {
			_, err := client.Submit(ctx, name, nil)
			return err
		},
		call: func(name string) error {
			_, err := lineshaft.Call[any](ctx, client, name, nil)
			return err
		},
		work: func() error {
			worker := lineshaft.NewWorker(client, lineshaft.WithConcurrency(concurrency))
			for name, function := range functions {
				lineshaft.Handle(worker, name, func(context.Context, any) (any, error) { return nil, function() })
			}
			return worker.Run(ctx)
		},
	}
}

func newAsynq() system {
	redis := asynq.RedisClientOpt{Addr: address}
	client := asynq.NewClient(redis)
	return system{
		submit: func(name string) error {
			_, err := client.Enqueue(asynq.NewTask(name, nil))
			return err
		},
		work: func() error {
			mux := asynq.NewServeMux()
			for name, function := range functions {
				mux.HandleFunc(name, func(context.Context, *asynq.Task) error { return function() })
			}
			config := asynq.Config{Concurrency: concurrency, TaskCheckInterval: pollInterval, LogLevel: asynq.WarnLevel}
			return asynq.NewServer(redis, config).Run(mux)
		},
	}
}

type arguments struct {
	Name string `json:"name"`
}

func (arguments) Kind() string { return "peers" }

type riverWorker struct {
	river.WorkerDefaults[arguments]
}

func (riverWorker) Work(_ context.Context, job *river.Job[arguments]) error {
	return functions[job.Args.Name]()
}

func newRiver() system {
	pool := must(pgxpool.New(ctx, fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&pool_max_conns=64", address)))
	driver := riverpgxv5.New(pool)
	// The worker and the callers start at the same time.
	lock := must(pool.Acquire(ctx))
	must(lock.Exec(ctx, "SELECT pg_advisory_lock(1)"))
	must(must(rivermigrate.New(driver, nil)).Migrate(ctx, rivermigrate.DirectionUp, nil))
	must(lock.Exec(ctx, "SELECT pg_advisory_unlock(1)"))
	lock.Release()
	workers := river.NewWorkers()
	river.AddWorker(workers, riverWorker{})
	client := must(river.NewClient[pgx.Tx](driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: concurrency}},
		FetchCooldown:     pollInterval,
		FetchPollInterval: time.Second, // it is notified of new tasks
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Workers:           workers,
	}))
	return system{
		submit: func(name string) error {
			_, err := client.Insert(ctx, arguments{name}, nil)
			return err
		},
		work: func() error {
			if err := client.Start(ctx); err != nil {
				return err
			}
			select {}
		},
	}
}

// submitUntil submits in a loop in each caller until `ended`; returns the number of submissions.
func submitUntil(s system, name string, callers int, ended func() bool, backlogMax int64) int64 {
	var count atomic.Int64
	var all sync.WaitGroup
	before := done()
	for range callers {
		all.Go(func() {
			for !ended() {
				if number := count.Load(); number%20 == 0 {
					for count.Load()-(done()-before) > backlogMax && !ended() {
						time.Sleep(time.Millisecond)
					}
				}
				if err := s.submit(name); err != nil {
					log.Fatal(err)
				}
				count.Add(1)
			}
		})
	}
	all.Wait()
	return count.Load()
}

func waitFor(count int64, pause time.Duration) {
	for until := time.Now().Add(waitMax); done() < count; time.Sleep(pause) {
		if time.Now().After(until) {
			log.Fatalf("%d of %d tasks have run", done(), count)
		}
	}
}

// submit returns submissions per second; no worker runs.
func submit(s system, callers int, duration time.Duration) float64 {
	must(0, s.submit("noop"))
	start := time.Now()
	count := submitUntil(s, "noop", callers, func() bool { return time.Since(start) > duration }, 1<<40)
	return float64(count) / time.Since(start).Seconds()
}

// run returns the tasks per second that the worker completes while the callers submit.
func run(s system, name string, callers int, duration time.Duration) float64 {
	before := done()
	must(0, s.submit(name))
	waitFor(before+1, time.Millisecond)
	var isEnding atomic.Bool
	submitted := make(chan int64)
	go func() { submitted <- submitUntil(s, name, callers, isEnding.Load, backlogMax) }()
	time.Sleep(duration / 3)
	count, start := done(), time.Now()
	time.Sleep(duration)
	rate := float64(done()-count) / time.Since(start).Seconds()
	isEnding.Store(true)
	waitFor(before+1+<-submitted, time.Millisecond)
	return rate
}

// call returns the median time in ms from the submission to the end, one task at a time.
func call(s system, name string, duration time.Duration) float64 {
	one := s.call
	if one == nil {
		one = func(name string) error {
			before := done()
			err := s.submit(name)
			waitFor(before+1, 50*time.Microsecond)
			return err
		}
	}
	for range 20 {
		must(0, one(name))
	}
	var times []float64
	for until := time.Now().Add(duration); time.Now().Before(until); {
		start := time.Now()
		must(0, one(name))
		times = append(times, time.Since(start).Seconds()*1000)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func main() {
	s := map[string]func() system{"lineshaft": newLineshaft, "asynq": newAsynq, "river": newRiver}[os.Args[1]]()
	var result float64
	args := os.Args[2:]
	seconds := func(text string) time.Duration {
		return time.Duration(must(strconv.ParseFloat(text, 64)) * float64(time.Second))
	}
	switch args[0] {
	case "work":
		must(0, s.work())
	case "submit":
		result = submit(s, must(strconv.Atoi(args[1])), seconds(args[2]))
	case "run":
		result = run(s, args[1], must(strconv.Atoi(args[2])), seconds(args[3]))
	case "call":
		result = call(s, args[1], seconds(args[2]))
	default:
		log.Fatalf("no such command: %s", args[0])
	}
	must(0, json.NewEncoder(os.Stdout).Encode(result))
}
