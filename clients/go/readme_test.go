package lineshaft_test

import (
	"archive/zip"
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

const modulePath = "github.com/lineshaft/lineshaft/clients/go"

var (
	commandBlocks = regexp.MustCompile("(?s)```sh\n(.*?)```")
	programBlocks = regexp.MustCompile("(?s)<!-- program: (\\w+) -->\n```go\n(.*?)```")
)

// newUser is a machine without this repository: modules come from a proxy that has this package as its released version.
type newUser struct {
	t   *testing.T
	dir string
	env []string
}

func becomeNewUser(t *testing.T, server *server) *newUser {
	t.Helper()
	dir := t.TempDir()
	proxy := filepath.Join(dir, "proxy")
	publish(t, proxy)
	cache := must[[]byte](t)(exec.Command("go", "env", "GOMODCACHE").Output())
	env := append(os.Environ(),
		"GOPROXY=file://"+proxy+",file://"+strings.TrimSpace(string(cache))+"/cache/download",
		"GOMODCACHE="+filepath.Join(dir, "modules"), "GOFLAGS=-modcacherw -trimpath", "GOSUMDB=off", "GOWORK=off",
		"LINESHAFT_ADDRESS="+server.address)
	return &newUser{t, dir, env}
}

// publish puts the files of this package into the proxy.
func publish(t *testing.T, proxy string) {
	t.Helper()
	versions := filepath.Join(proxy, modulePath, "@v")
	if err := os.MkdirAll(versions, 0o700); err != nil {
		t.Fatal(err)
	}
	version := "v" + lineshaft.Version
	file := must[*os.File](t)(os.Create(filepath.Join(versions, version+".zip")))
	archive := zip.NewWriter(file)
	if err := addFiles(archive, modulePath+"@"+version); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"list": version + "\n", version + ".info": `{"Version":"` + version + `"}`,
		version + ".mod": string(must[[]byte](t)(os.ReadFile("go.mod"))),
	} {
		if err := os.WriteFile(filepath.Join(versions, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func addFiles(archive *zip.Writer, prefix string) error {
	return filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := archive.Create(prefix + "/" + filepath.ToSlash(path))
		if err != nil {
			return err
		}
		_, err = file.Write(text)
		return err
	})
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
