package lineshaft_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

func Example() {
	ctx := context.Background()
	client, err := lineshaft.NewClient("127.0.0.1:7070")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	type sum struct{ Value int }
	result, err := lineshaft.Call[sum](ctx, client, "compute", 5_000_000)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Value)
}

func ExampleHandle() {
	client, err := lineshaft.NewClient("127.0.0.1:7070")
	if err != nil {
		log.Fatal(err)
	}
	worker := lineshaft.NewWorker(client, lineshaft.WithConcurrency(8))
	lineshaft.Handle(worker, "shout", func(ctx context.Context, text string) (string, error) {
		lineshaft.CurrentAttempt(ctx).Progress(0.5, "shouting")
		if text == "" {
			return "", lineshaft.Permanent(errors.New("there is no text"))
		}
		return strings.ToUpper(text), nil
	})
	if err := worker.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func ExampleAsCompleted() {
	ctx := context.Background()
	client, err := lineshaft.NewClient("127.0.0.1:7070")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	tasks, err := lineshaft.SubmitAll(ctx, client, "shout", []string{"a", "b", "c"})
	if err != nil {
		log.Fatal(err)
	}
	for task, err := range lineshaft.AsCompleted(ctx, tasks) {
		if err != nil {
			log.Fatal(err)
		}
		text, err := lineshaft.ResultOf[string](ctx, task)
		fmt.Println(task.ID(), text, err)
	}
}

func ExampleError() {
	ctx := context.Background()
	client, err := lineshaft.NewClient("127.0.0.1:7070")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	_, err = lineshaft.Call[string](ctx, client, "shout", "a")
	var (
		failed    *lineshaft.TaskFailedError
		cancelled *lineshaft.TaskCancelledError
		refused   *lineshaft.Error
	)
	switch {
	case errors.As(err, &failed):
		fmt.Println("failed:", failed.Reason, failed.Message)
	case errors.As(err, &cancelled):
		fmt.Println("cancelled:", cancelled.Receipt.GetReason())
	case errors.As(err, &refused) && refused.Reason == lineshaft.ReasonUnknownHandler:
		fmt.Println("start a worker first")
	}
}
