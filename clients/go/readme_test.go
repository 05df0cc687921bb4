package lineshaft_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

var (
	commandBlocks = regexp.MustCompile("(?s)```sh\n(.*?)```")
	programBlocks = regexp.MustCompile("(?s)<!-- program: (\\w+) -->\n```go\n(.*?)```")
)

// newUser is a directory beside a clone of this repository, without a cache of modules.
type newUser struct {
	t   *testing.T
	dir string
	env []string
}

func becomeNewUser(t *testing.T, server *server) *newUser {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "lineshaft/clients"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "lineshaft/clients/go"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	cache := must[[]byte](t)(exec.Command("go", "env", "GOMODCACHE").Output())
	env := append(os.Environ(),
		"GOPROXY=file://"+strings.TrimSpace(string(cache))+"/cache/download",
		"GOMODCACHE="+filepath.Join(dir, "modules"), "GOFLAGS=-modcacherw -trimpath", "GOSUMDB=off", "GOWORK=off",
		"LINESHAFT_SERVER="+server.address)
	return &newUser{t, dir, env}
}

// command is a shell command that a new user types in this folder.
func (u *newUser) command(folder, script string) *exec.Cmd {
	command := exec.Command("bash", "-euc", script)
	command.Dir, command.Env = filepath.Join(u.dir, folder), u.env
	return command
}

func (u *newUser) run(folder, script string) string {
	u.t.Helper()
	output, err := u.command(folder, script).CombinedOutput()
	if err != nil {
		u.t.Fatalf("%s: %v\n%s", script, err, output)
	}
	return string(output)
}

func (u *newUser) write(path, text string) {
	u.t.Helper()
	if err := os.WriteFile(filepath.Join(u.dir, path), []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

func TestTheReadmeWorksForANewUser(t *testing.T) {
	readme := string(must[[]byte](t)(os.ReadFile("README.md")))
	user := becomeNewUser(t, startServer(t, ""))
	commands := commandBlocks.FindAllStringSubmatch(readme, -1)
	programs := map[string]string{}
	for _, block := range programBlocks.FindAllStringSubmatch(readme, -1) {
		programs[block[1]] = block[2]
	}
	// The first command starts the server.
	user.run(".", commands[1][1])
	for name, text := range programs {
		user.write("first/"+name+"/main.go", text)
	}
	user.startWorker("first", commands[2][1])
	if output := user.run("first", commands[3][1]); !strings.Contains(output, "Hello, Ada!") {
		t.Errorf("the first program printed %q", output)
	}
}

// startWorker runs a command until the test ends, and returns when its worker has connected.
func (u *newUser) startWorker(folder, script string) {
	u.t.Helper()
	command := u.command(folder, script)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := must[io.ReadCloser](u.t)(command.StderrPipe())
	if err := command.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		_ = command.Wait()
	})
	text := ""
	for lines := bufio.NewScanner(log); lines.Scan(); {
		text += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "is connected") {
			return
		}
	}
	u.t.Fatalf("%s: %s", script, text)
}
