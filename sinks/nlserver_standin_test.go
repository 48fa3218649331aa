package sinks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
)

// buildStandin builds the stand-in for nlserver, once for all tests that want it.
var buildStandin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nlserver-standin-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "nlserver")
	if out, err := exec.Command("go", "build", "-o", path, "campaign-credsync/test/nlserver").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-in: %w\n%s", err, out)
	}
	// Kept in memory, so that nothing has to be removed after the last test.
	program, err := os.ReadFile(path)
	return string(program), err
})

// standinHome is a Campaign home with the stand-in as nlserver and an instance called prod.
type standinHome struct {
	t    *testing.T
	path string
}

func newStandinHome(t *testing.T) *standinHome {
	t.Helper()
	program, err := buildStandin()
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(t.TempDir(), "standin")
	if err := os.WriteFile(tool, []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	h := &standinHome{t: t, path: filepath.Join(t.TempDir(), "nl 6")} // a space: nothing here is split by a shell
	h.tool(tool, "--standin-layout", h.path)
	h.tool(tool, "--standin-instance", h.path, "prod")
	return h
}

func (h *standinHome) tool(program string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", args, err, out)
	}
	return string(out)
}

func (h *standinHome) faults(switches string) {
	h.t.Helper()
	h.tool(filepath.Join(h.path, "bin/nlserver"), "--standin-faults", h.path, switches)
}

// read returns a file below the home; "" when there is none.
func (h *standinHome) read(name string) string {
	text, err := os.ReadFile(filepath.Join(h.path, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	return string(text)
}

func (h *standinHome) server(change ...func(*NLServerConfig)) *NLServer {
	config := NLServerConfig{Home: h.path, EnvScript: "env.sh"}
	for _, c := range change {
		c(&config)
	}
	return NewNLServer(config)
}

func TestStandinTakesTheCredential(t *testing.T) {
	for _, test := range []struct{ options, want string }{
		{`["setimsoauth", "setimsauth", "setimsjwtauth"]`, "setimsoauth"},
		{`["setimsauth", "setimsjwtauth"]`, "setimsauth"},
		{`["setimsjwtauth"]`, "setimsjwtauth"},
	} {
		h := newStandinHome(t)
		h.faults(`{"options": ` + test.options + `}`)
		n := h.server()
		for range 2 {
			result, err := n.set(t.Context(), "prod", nlTestCredential, nil)
			if err != nil {
				t.Fatal(err)
			}
			mustHide(t, result.Output)
		}
		if got := h.read("conf/config-prod.xml"); !strings.Contains(got, nlTestCredential.TechnicalAccountID) {
			t.Errorf("%s: the credential is not in %s", test.want, got)
		}
		runs := h.read("var/standin/runs.jsonl")
		if got := strings.Count(runs, `"event":"end","subcommand":"config","kind":"help"`); got != 1 {
			t.Errorf("asked for the options %d times; runs:\n%s", got, runs)
		}
		if !strings.Contains(runs, `"option":"`+test.want+`"`) {
			t.Errorf("want %s; runs:\n%s", test.want, runs)
		}
	}
}

func TestStandinWithoutItsEnvironment(t *testing.T) {
	h := newStandinHome(t)
	n := h.server(func(c *NLServerConfig) { c.EnvScript, c.Command = "", "setimsoauth" })
	_, err := n.set(t.Context(), "prod", nlTestCredential, nil)
	mustSay(t, err, "exit status 127", "error while loading shared libraries")
}

func TestStandinRefusals(t *testing.T) {
	h := newStandinHome(t)
	n := h.server()
	_, err := n.set(t.Context(), "nosuch", nlTestCredential, nil)
	mustSay(t, err, "instance nosuch", "exit status 1", "(iRc=")
	h.faults(`{"options": []}`)
	_, err = h.server().set(t.Context(), "prod", nlTestCredential, nil)
	mustSay(t, err, "offers none of -setimsoauth", "7.4.1 build 9383")
}

// A stand-in that prints the secret in many ways, before failing and before succeeding.
func TestStandinThatPrintsTheSecret(t *testing.T) {
	for _, secret := range []string{nlTestSecret, `p8e-<"&'>\%+=?#~^|{}[]:;,.$!*()@_-`} {
		for _, switches := range []string{
			`{"print_secret": true}`, `{"print_secret": true, "fail": "before"}`,
			`{"print_secret": true, "fail": "after", "print_bytes": 3000000}`,
			`{"print_pieces": true}`, `{"print_pieces": true, "fail": "before"}`,
		} {
			h := newStandinHome(t)
			h.faults(switches)
			c := nlTestCredential
			c.ClientSecret = credential.NewSecret(secret)
			var log bytes.Buffer
			n := h.server(func(config *NLServerConfig) {
				config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			result, err := n.set(t.Context(), "prod", c, nil)
			said := result.Output + log.String() + fmt.Sprint(err)
			if !strings.Contains(said, "[redacted]") {
				t.Fatalf("%s: nothing was redacted in %.1000q", switches, said)
			}
			if strings.Contains(said, secret[4:12]) || strings.Contains(said, secret[len(secret)-8:]) {
				t.Errorf("%s: part of %q is in %.2000q", switches, secret, said)
			}
			for i := range 3 { // in base64, whatever stands before it
				own := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", i) + secret))[4:20]
				if strings.Contains(said, own) {
					t.Errorf("%s: part of %q is in base64 in %.4000q", switches, secret, said)
				}
			}
		}
	}
}

func TestStandinThatIsStopped(t *testing.T) {
	h := newStandinHome(t)
	h.faults(`{"hang": true, "ignore_sigterm": true, "fork_child": "1h"}`)
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	n := h.server(func(c *NLServerConfig) { c.Timeout = time.Second })
	_, err = n.set(t.Context(), "prod", nlTestCredential, lock)
	lock.Close()
	mustSay(t, err, "stopped after 1s", "stand-in waits: hang")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error does not wrap the deadline: %v", err)
	}
	later, err := os.Open(lock.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	// Granted when the stand-in and its child are gone.
	if err := syscall.Flock(int(later.Fd()), syscall.LOCK_EX); err != nil {
		t.Error(err)
	}
}

func TestStandinIsActivated(t *testing.T) {
	h := newStandinHome(t)
	n := h.server()
	for _, step := range ActivationSteps(true, []string{"web", "pipelined"}, "prod") {
		if err := n.Activate(t.Context(), step, time.Time{}); err != nil {
			t.Error(err)
		}
	}
	h.faults(`{"restart_fail": ["pipelined@prod"], "reload_fail": true, "on": ["restart", "reload"]}`)
	if err := n.Activate(t.Context(), stepOf("restart web"), time.Time{}); err != nil {
		t.Error(err)
	}
	mustSay(t, n.Activate(t.Context(), stepOf("restart pipelined@prod"), time.Time{}), "nlserver restart pipelined@prod: exit status 1", "by hand")
	mustSay(t, n.Activate(t.Context(), stepOf("reload"), time.Time{}), "nlserver config -reload: exit status 1", "(iRc=")
}
