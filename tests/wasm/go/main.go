// A guest in Go. Its first argument says what it does.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

type words struct {
	Text string `json:"text"`
}

func main() {
	switch os.Args[1] {
	case "count":
		count()
	case "panic":
		panic("out of order")
	case "allocate":
		var blocks [][]byte
		for {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = 1
			}
			blocks = append(blocks, block)
		}
	case "recurse":
		fmt.Println(recurse(1))
	case "sleep":
		began := time.Now()
		time.Sleep(20 * time.Millisecond)
		fmt.Print(time.Since(began) >= 20*time.Millisecond)
	case "spin":
		for {
		}
	case "escape":
		escape()
	default:
		os.Exit(64)
	}
}

// count uses goroutines, maps and the garbage collector.
func count() {
	var input words
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		fmt.Fprintln(os.Stderr, "not JSON:", err)
		os.Exit(65)
	}
	found := make(chan string)
	go func() {
		for _, word := range strings.Fields(input.Text) {
			found <- word
		}
		close(found)
	}()
	counts := map[string]int{}
	for word := range found {
		counts[word]++
	}
	json.NewEncoder(os.Stdout).Encode(counts)
}

func recurse(depth int) int { return recurse(depth+1) + depth }

// escape succeeds if nothing outside can be reached.
func escape() {
	for _, path := range []string{"/etc/passwd", "/", "."} {
		if _, err := os.ReadDir(path); err == nil {
			fmt.Println("read", path)
			os.Exit(1)
		}
		if _, err := os.ReadFile(path); err == nil {
			fmt.Println("read", path)
			os.Exit(1)
		}
	}
	fmt.Print("nothing reached")
}
