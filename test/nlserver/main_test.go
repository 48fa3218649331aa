package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standin is the executable under test. Everything here runs it as others do,
// and looks at what it prints and leaves on disk.
var standin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "nlserver-standin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		standin = filepath.Join(dir, "nlserver-standin")
		if out, err := exec.Command("go", "build", "-o", standin, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

const (
	org     = "0123456789ABCDEF01234567@AdobeOrg"
	client  = "11112222333344445555666677778888"
	account = "AAAABBBBCCCCDDDDEEEEFFFF@techacct.adobe.com"
	secret  = "p8e-not_A-real_SECRET-0123456789abcd"
)

var oauth = "-setimsoauth:" + strings.Join([]string{org, client, account, secret}, "/")

// campaign is a Campaign home with the instance "prod".
type campaign struct {
	t    *testing.T
	home string
}

func newCampaign(t *testing.T) *campaign {
	t.Helper()
	c := &campaign{t, filepath.Join(t.TempDir(), "nl6")}
	c.mustTool("--standin-layout", c.home)
	c.mustTool("--standin-instance", c.home, "prod")
	return c
}

func (c *campaign) mustTool(args ...string) string {
	c.t.Helper()
	out, err := exec.CommandContext(c.t.Context(), standin, args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (c *campaign) setFaults(switches string) {
	c.t.Helper()
	c.mustTool("--standin-faults", c.home, switches)
}

// command is nlserver as installed, in the environment that env.sh makes.
func (c *campaign) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.home, "bin", "nlserver"), args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(c.home, "lib"))
	return cmd
}

type result struct {
	code           int
	signal         syscall.Signal // that ended it, or 0
	stdout, stderr string
}

func (c *campaign) run(args ...string) result {
	c.t.Helper()
	return c.finish(c.command(args...))
}

func (c *campaign) finish(cmd *exec.Cmd) result {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("%q: %v", cmd.Args, err)
	}
	return outcome(cmd, stdout.String(), stderr.String())
}

func outcome(cmd *exec.Cmd, stdout, stderr string) result {
	r := result{code: cmd.ProcessState.ExitCode(), stdout: stdout, stderr: stderr}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		r.signal = status.Signal()
	}
	return r
}

func (c *campaign) mustRun(args ...string) result {
	c.t.Helper()
	r := c.run(args...)
	if r.code != 0 {
		c.t.Fatalf("%q: exit %d, want 0\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r
}

// waitingRun is a run that said that it waits.
type waitingRun struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

// startUntil starts a run and returns when it waits because of that switch.
func (c *campaign) startUntil(at string, args ...string) *waitingRun {
	c.t.Helper()
	cmd := c.command(args...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	w := &waitingRun{c.t, cmd, bufio.NewReader(pipe)}
	for {
		line, err := w.out.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%q never waited for %s: %v", args, at, err)
		}
		if strings.HasSuffix(line, "stand-in waits: "+at+"\n") {
			return w
		}
	}
}

func (w *waitingRun) signal(sig syscall.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
}

func (w *waitingRun) end() result {
	rest, _ := io.ReadAll(w.out)
	w.cmd.Wait()
	return outcome(w.cmd, string(rest), "")
}

func (c *campaign) instanceFile() string { return filepath.Join(c.home, "conf", "config-prod.xml") }

func (c *campaign) read() string {
	c.t.Helper()
	text, err := os.ReadFile(c.instanceFile())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func (c *campaign) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.instanceFile(), []byte(text), 0o640); err != nil {
		c.t.Fatal(err)
	}
}

// ims reads the attributes of <serverconf><shared><ims> with the XML parser of
// the standard library, which the stand-in does not use.
func (c *campaign) ims() map[string]string {
	c.t.Helper()
	var file struct {
		Shared struct {
			IMS struct {
				Attributes []xml.Attr `xml:",any,attr"`
			} `xml:"ims"`
		} `xml:"shared"`
	}
	if err := xml.Unmarshal([]byte(c.read()), &file); err != nil {
		c.t.Fatalf("instance file: %v", err)
	}
	found := map[string]string{}
	for _, a := range file.Shared.IMS.Attributes {
		found[a.Name.Local] = a.Value
	}
	return found
}

func (c *campaign) decrypt(value string) string {
	c.t.Helper()
	return strings.TrimSuffix(c.mustTool("--standin-decrypt", value), "\n")
}

// record is what a line of the run log promises to others.
type record struct {
	Time                                      time.Time
	PID                                       int
	Event, Subcommand, Kind, Instance, Option string
	Fields                                    int
	Modules, Faults                           []string
	EnvOK                                     bool   `json:"env_ok"`
	SecretSHA256                              string `json:"secret_sha256"`
	PrivateKeySHA256                          string `json:"private_key_sha256"`
	At                                        string
	ChildPID                                  int  `json:"child_pid"`
	ExitCode                                  *int `json:"exit_code"`
	Started, Ended                            time.Time
	DurationUS                                int64 `json:"duration_us"`
	Misuse                                    string
}

func (c *campaign) runLog() string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.home, "var", "standin", "runs.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Fatal(err)
	}
	return string(text)
}

func (c *campaign) records() []record {
	c.t.Helper()
	var records []record
	for line := range strings.Lines(c.runLog()) {
		var r record
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&r); err != nil {
			c.t.Fatalf("run log: %v in %q", err, line)
		}
		records = append(records, r)
	}
	return records
}
