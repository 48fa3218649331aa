package faults_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// tracing is a tracer (test/tracer) that follows a daemon.
type tracing struct {
	t       *testing.T
	command *exec.Cmd
	input   io.WriteCloser
	hit     chan call // gives the call that was interfered with
	ended   chan struct{}
	calls   []call // all, if they were asked for; to be read after the end
	count   int
	last    map[string]map[string]tracedFile // at the end, if they were asked for
}

// call is a system call of the daemon.
type call struct {
	N        int    `json:"n"`
	Call     string `json:"call"`
	On       string `json:"on"`
	Fired    bool   `json:"fired"`
	Attached bool   `json:"attached"`
	Calls    int    `json:"calls"`

	ID    string                           `json:"id"` // of the file that is synced
	Files map[string]map[string]tracedFile `json:"files"`
}

// tracedFile is what a name shows when a call begins.
type tracedFile struct {
	ID    string `json:"id"`
	MTime int64  `json:"mtime"`
	Data  []byte `json:"data"`
}

func (c call) String() string { return fmt.Sprintf("call %d, %s %s", c.N, c.Call, c.On) }

// builtTracer builds it, once for all tests that want it, beside the other programs.
var builtTracer = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(world.Plain().NLServer), "tracer")
	out, err := exec.Command("go", "build", "-o", path, "campaign-credsync/test/tracer").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the tracer: %w\n%s", err, out)
	}
	return path, nil
})

// buildTracer returns the tracer's path, and skips the test where it cannot follow a process.
func buildTracer(t *testing.T) string {
	t.Helper()
	path, err := builtTracer()
	if err != nil {
		t.Fatal(err)
	}
	idle := exec.Command("sleep", "60")
	if err := idle.Start(); err != nil {
		t.Fatal(err)
	}
	defer idle.Wait()
	defer idle.Process.Kill()
	if out, err := exec.Command(path, "-pid", strconv.Itoa(idle.Process.Pid)).CombinedOutput(); err != nil {
		skip.Unable(t, "processes cannot be traced here: "+string(out))
	}
	return path
}

// trace has a tracer follow the daemon of a world.
func trace(w *world.World, tracer string, args ...string) *tracing {
	w.T.Helper()
	tr := &tracing{t: w.T, hit: make(chan call, 1), ended: make(chan struct{})}
	tr.command = exec.Command(tracer, append([]string{"-pid", strconv.Itoa(w.Running.PID())}, args...)...)
	var err error
	tr.input, err = tr.command.StdinPipe()
	w.Must(err)
	output, err := tr.command.StdoutPipe()
	w.Must(err)
	w.Must(tr.command.Start())
	attached := make(chan struct{})
	go func() {
		defer close(tr.ended)
		lines := bufio.NewScanner(output)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var c call
			json.Unmarshal(lines.Bytes(), &c)
			switch {
			case c.Attached:
				close(attached)
			case c.Calls > 0:
				tr.count, tr.last = c.Calls, c.Files
			default:
				tr.calls = append(tr.calls, c)
				if c.Fired {
					tr.hit <- c
				}
			}
		}
	}()
	select {
	case <-attached:
	case <-tr.ended:
		w.T.Fatalf("the tracer ended\n%s", w.Log())
	case <-time.After(world.Patience):
		w.T.Fatal("the tracer does not follow")
	}
	return tr
}

// leave has the daemon run free again.
func (tr *tracing) leave() {
	tr.t.Helper()
	tr.input.Close()
	select {
	case <-tr.ended:
	case <-time.After(world.Patience):
		tr.command.Process.Kill()
		tr.t.Fatal("the tracer does not end")
	}
	if err := tr.command.Wait(); err != nil {
		tr.t.Error("the tracer: ", err)
	}
}
