// Package report lets a program that a process handler with `reports = true` starts say how far it is and why it failed.
// Elsewhere a report does nothing, and the result goes to stdout.
package report

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// Progress shows the progress, 0 to 1, and a note.
func Progress(fraction float64, note string) error {
	return report("progress " + strconv.FormatFloat(fraction, 'f', 6, 64) + " " + note)
}

// Result writes the result. Several calls add to it. With an empty content type it has that of the handler.
func Result(data []byte, contentType string) error {
	if contentType != "" {
		if err := report("content-type " + contentType); err != nil {
			return err
		}
	}
	path := os.Getenv("LINESHAFT_RESULT")
	if path == "" {
		_, err := os.Stdout.Write(data)
		return err
	}
	return write(path, data)
}

// Error sets the message of the failure if the program exits with another code than 0.
func Error(message string) error {
	return report("error " + message)
}

// NoRetry prevents a retry if the program exits with another code than 0.
func NoRetry() error {
	return report("no-retry")
}

// RetryAfter sets the time of the retry if the program exits with another code than 0.
func RetryAfter(delay time.Duration) error {
	return report("retry-after " + strconv.FormatFloat(delay.Seconds(), 'f', 6, 64))
}

func report(line string) error {
	path := os.Getenv("LINESHAFT_REPORT")
	if path == "" {
		return nil
	}
	return write(path, []byte(strings.Join(strings.Fields(line), " ")+"\n"))
}

func write(path string, data []byte) error {
	pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = pipe.Write(data)
	if closed := pipe.Close(); err == nil {
		err = closed
	}
	return err
}
