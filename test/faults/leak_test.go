package faults_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// canary looks for a secret in every form that a careless program gives it.
type canary struct {
	*world.World
	forms map[string]string
}

func newCanary(w *world.World, secret string) canary {
	backwards := []byte(secret)
	for i, j := 0, len(backwards)-1; i < j; i, j = i+1, j-1 {
		backwards[i], backwards[j] = backwards[j], backwards[i]
	}
	return canary{w, map[string]string{
		"as it is": secret, "URL-encoded": url.QueryEscape(secret), "backwards": string(backwards),
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64 for URLs": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"hexadecimal": hex.EncodeToString([]byte(secret)), "upper hexadecimal": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"half of it": secret[4:20],
	}}
}

func (c canary) absent(place string, text []byte) {
	c.T.Helper()
	for form, value := range c.forms {
		if bytes.Contains(text, []byte(value)) {
			c.T.Errorf("the secret shows in %s, %s", place, form)
		}
	}
}

// absentBelow looks into every file below the world, which are all that the daemon may write, and at their names.
func (c canary) absentBelow(when string) {
	c.T.Helper()
	c.Must(filepath.WalkDir(c.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // a temporary file that is gone
			}
			return err
		}
		c.absent(when+", the name "+path, []byte(path))
		if e.Type().IsRegular() {
			if text, err := os.ReadFile(path); err == nil {
				c.absent(when+", "+path, text)
			}
		}
		return nil
	}))
}

// absentInProcess looks at what other processes can see of the daemon.
func (c canary) absentInProcess(when string) {
	c.T.Helper()
	for _, name := range []string{"cmdline", "environ", "comm", "status", "stat", "wchan", "maps", "mountinfo"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Running.PID()), name))
		c.Must(err)
		c.absent(when+", /proc/PID/"+name, text)
	}
	fds := filepath.Join("/proc", strconv.Itoa(c.Running.PID()), "fd")
	entries, err := os.ReadDir(fds)
	c.Must(err)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil {
			c.absent(when+", /proc/PID/fd", []byte(to))
		}
	}
}

// absentInAnswers asks the control socket everything, also what makes no sense, and runs every command, one of them with the secret by
// mistake.
func (c canary) absentInAnswers(when string) {
	c.T.Helper()
	for _, request := range []string{
		"GET /status HTTP/1.0\r\n\r\n", "POST /sync HTTP/1.0\r\n\r\n", "GET /sync HTTP/1.0\r\n\r\n", "PUT /status HTTP/1.0\r\n\r\n",
		"POST /sync?instance=none HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "GET /metrics HTTP/1.0\r\n\r\n", "GET /history HTTP/1.0\r\n\r\n",
		"GET /debug/pprof/heap HTTP/1.0\r\n\r\n", "GET /debug/vars HTTP/1.0\r\n\r\n", "TRACE /status HTTP/1.0\r\n\r\n", "nonsense\r\n\r\n",
	} {
		c.absent(when+", the answer to "+strings.TrimSpace(request), c.raw(request))
	}
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"diff"}, {"sync"}, {"sync", "--dry-run"}, {"status", "--prometheus"},
		{"pause", "--for", "1h", "--reason", "to set " + c.forms["as it is"]}, {"status"}, {"resume"}, {"history"}, {"history", "--json"}, {"validate"}, {"validate", "--effective"}, {"version"}, {"help"}, {"nonsense"},
	} {
		stdout, stderr, _ := c.RunCommand(args...)
		c.absent(when+", the output of "+strings.Join(args, " "), []byte(stdout+stderr))
	}
}

// raw says something at the control socket, and returns all that comes back.
func (c canary) raw(request string) []byte {
	c.T.Helper()
	conn, err := net.Dial("unix", filepath.Join(c.Dir, "control.sock"))
	c.Must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	c.Must(err)
	answer, err := io.ReadAll(conn)
	c.Must(err)
	return answer
}

// The secret is on nlserver's command line while nlserver runs, and nowhere else: not in a file, its name, the log at its
// most talkative, an answer, a command's output, or what /proc shows of the daemon; not before, during or after an apply,
// whatever nlserver prints, and whatever a crash leaves behind.
func TestSecretShowsNowhereElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, faults string }{
		{"applied", ``},
		{"nlserver prints it and works", `"print_secret": true`},
		{"nlserver prints it and fails", `"print_secret": true, "fail": "before"`},
		{"nlserver writes half", `"print_secret": true, "write_half": true`},
		{"nlserver is killed", `"print_secret": true, "die": true, "write_empty": true`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			told := w.Path("told")
			w.Must(w.Reconfigure(w.Ctx, func(o *container.Options) {
				o.Settings += "\nnotify: {exec: [/bin/sh, -c, 'cat >>\"$0\"; env >>\"$0\"', " + told + "]}"
			}))
			w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			before := strings.Contains(c.faults, `"before"`) // it does not come to write
			faults := `{"write_delay": "10m"`
			if c.faults != "" {
				faults += ", " + c.faults
			}
			w.Faults(faults + "}")
			next, secret := w.NewSecret("prod")
			leak := newCanary(w, secret)
			leak.absentBelow("before")
			w.Signal(syscall.SIGUSR1)
			if before {
				w.Is("prod", "pending", "[redacted]")
			} else {
				run := w.WaitsAt("write_delay")
				arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", run.PID))
				w.Must(err)
				if !bytes.Contains(arguments, []byte(secret)) {
					t.Error("the test looks in vain: the secret is not where it has to be")
				}
				environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", run.PID))
				w.Must(err)
				leak.absent("nlserver's environment", environment)
			}
			leak.absentBelow("during the apply")
			leak.absentInProcess("during the apply")
			leak.absent("the status during the apply", leak.raw("GET /status HTTP/1.0\r\n\r\n"))
			w.Kill()
			leak.absentBelow("after a crash")
			w.Faults("")
			w.Release()
			w.StartDaemon()
			w.Eventually("it is applied", func() bool {
				w.Signal(syscall.SIGUSR1)
				s, err := w.Asker().Status(w.Ctx)
				return err == nil && s.Applied(next)
			})
			w.Blank("prod")
			w.OnDisk("prod", secret)
			leak.absentInAnswers("in sync")
			leak.absentInProcess("in sync")
			leak.absentBelow("in sync")
			w.Stop()
			if text, err := os.ReadFile(told); err != nil || !bytes.Contains(text, []byte(`"event":"applied"`)) {
				t.Errorf("the program of notify.exec was told nothing: %v", err)
			}
			leak.absentBelow("at the end")
			leak.absent("the log", []byte(w.Log()))
		})
	}
}
