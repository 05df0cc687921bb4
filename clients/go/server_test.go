package lineshaft_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

// testTimeout bounds a test that hangs; no test depends on it.
const testTimeout = time.Minute

const defaultConfig = `
[[pool]]
name = "default"
size = 4

[[pool]]
name = "single"
size = 1

[[handler]]
name = "cat"
runner = "process"
argv = ["/bin/cat"]

[[handler]]
name = "fail"
runner = "process"
argv = ["/bin/sh", "-c", "echo broken >&2; exit 3"]
retry = { attempts = 1 }

[[handler]]
name = "nap"
runner = "builtin"
builtin = "io"
pool = "single"
`

// server is a server process with a data directory of its own.
type server struct {
	t       testing.TB
	dir     string
	address string
	process *exec.Cmd
	log     bytes.Buffer
}

// startServer starts the binary that LINESHAFT_BINARY names.
func startServer(t testing.TB, config string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	if err := os.WriteFile(filepath.Join(s.dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(func() {
		s.kill()
		if bytes.Contains(s.log.Bytes(), []byte(`"panicked"`)) {
			t.Error("the server has panicked")
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log.Bytes())
		}
	})
	return s
}

// start starts the process on the address of the previous one.
func (s *server) start() {
	s.t.Helper()
	binary := os.Getenv("LINESHAFT_BINARY")
	if binary == "" {
		s.t.Fatal("LINESHAFT_BINARY is not set: it names the server's binary")
	}
	ready := filepath.Join(s.dir, "ready")
	if err := os.RemoveAll(ready); err != nil {
		s.t.Fatal(err)
	}
	s.process = exec.Command(binary, "serve", "--listen", s.address, "--ready-file", ready,
		"--config", filepath.Join(s.dir, "config.toml"), "--data-dir", filepath.Join(s.dir, "data"))
	s.process.Env = []string{"PATH=" + os.Getenv("PATH")}
	s.process.Stdout, s.process.Stderr = &s.log, &s.log
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(testTimeout); ; time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(ready); err == nil {
			s.address = strings.TrimSpace(string(text))
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the server did not start")
		}
	}
}

// kill kills the process with SIGKILL.
func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// client returns a client of the server.
func (s *server) client(options ...lineshaft.ClientOption) *lineshaft.Client {
	return newClient(s.t, s.address, options...)
}

func newClient(t testing.TB, address string, options ...lineshaft.ClientOption) *lineshaft.Client {
	t.Helper()
	client, err := lineshaft.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// must fails the test if there is an error.
func must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// proxy forwards connections to a server until they are cut.
type proxy struct {
	address  string
	upstream string

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func startProxy(t testing.TB, upstream string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), upstream: upstream, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.forward(conn)
		}
	}()
	return p
}

func (p *proxy) forward(client net.Conn) {
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = client.Close()
			_ = server.Close()
		})
	}
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// cut breaks every connection and returns how many there were.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	return len(p.conns) / 2
}
