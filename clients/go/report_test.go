package lineshaft_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

func TestAProgramReportsItsProgressItsResultAndRetries(t *testing.T) {
	program := filepath.Join(t.TempDir(), "shout")
	if out, err := exec.Command("go", "build", "-o", program, "./report/testdata/shout").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client, ctx := startServer(t, fmt.Sprintf(`
[[handler]]
name = "shout"
runner = "process"
argv = [%q]
reports = true
retry = { attempts = 3, delay = "10m" }
`, program)).client(), testContext(t)
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "shout", lineshaft.Payload{Data: []byte("later"), ContentType: "text/plain"}))
	info := must[*lineshaft.TaskInfo](t)(task.Wait(ctx))
	var result lineshaft.Payload
	if err := task.Result(ctx, &result); err != nil || string(result.Data) != "LATER!" || result.ContentType != "text/x-upper" {
		t.Errorf("the result is %q, %v", result, err)
	}
	// The note of the progress is in the log of the attempt.
	if log := must[[]byte](t)(task.Output(ctx, lineshaft.FromStderr())); info.Attempt != 2 || string(log) != "half way\n" {
		t.Errorf("attempt %d has logged %q", info.Attempt, log)
	}
	var failed *lineshaft.TaskFailedError
	_, err := lineshaft.Call[lineshaft.Payload](ctx, client, "shout", lineshaft.Payload{Data: []byte("never")})
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "no such customer") {
		t.Errorf("the failure is %v", err)
	}
	run := exec.Command(program)
	run.Stdin, run.Env = strings.NewReader("x"), []string{}
	if out, err := run.Output(); err != nil || string(out) != "not the result\nX!" {
		t.Errorf("without a server the program printed %q, %v", out, err)
	}
}
