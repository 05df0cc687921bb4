// Submits one task, follows it to the end, and prints its result.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	lineshaftv1 "example.com/my-client/gen/lineshaft/v1"
)

func main() {
	address := cmp.Or(os.Getenv("LINESHAFT_SERVER"), "127.0.0.1:7070")
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()
	if err := run(lineshaftv1.NewTaskServiceClient(channel)); err != nil {
		log.Fatal(err)
	}
}

func run(tasks lineshaftv1.TaskServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The request id makes a retry safe: it returns the first task.
	task := &lineshaftv1.SubmitTaskRequest{
		Handler:   "compute",
		RequestId: rand.Text(),
		Payload: &lineshaftv1.Payload{
			Kind:        &lineshaftv1.Payload_Data{Data: []byte(`{"op": "primes", "n": 5000000}`)},
			ContentType: "application/json",
		},
	}
	steps, err := tasks.RunTask(ctx, &lineshaftv1.RunTaskRequest{Task: task})
	if err != nil {
		return err
	}
	for {
		step, err := steps.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if event := step.GetEvent(); event != nil {
			fmt.Println(event.State)
		}
		if task := step.GetTask(); task != nil {
			fmt.Printf("%s\n", task.Result.GetData())
		}
	}
}
