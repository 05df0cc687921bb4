// A program that reports, for the tests.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/lineshaft/lineshaft/clients/go/report"
)

func main() {
	word, err := io.ReadAll(os.Stdin)
	check(err)
	check(report.Progress(0.5, "half\n way"))
	switch {
	case string(word) == "never":
		check(report.Error("no such customer"))
		check(report.NoRetry())
		os.Exit(1)
	case string(word) == "later" && os.Getenv("LINESHAFT_ATTEMPT") == "1":
		check(report.RetryAfter(10 * time.Millisecond))
		os.Exit(1)
	}
	fmt.Println("not the result")
	check(report.Result([]byte(strings.ToUpper(string(word))), "text/x-upper"))
	check(report.Result([]byte("!"), ""))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
