package nlserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/standin"
)

// standinHome is a home with the stand-in.
type standinHome struct{ *standin.Home }

func newStandinHome(t *testing.T) standinHome { return standinHome{standin.New(t)} }

func (h standinHome) server(change ...func(*Config)) *Binary {
	config := Config{
		Home: h.Path, Executable: "bin/nlserver", EnvScript: "env.sh", Command: commandAuto, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
		StateDir: h.Path,
	}
	for _, c := range change {
		c(&config)
	}
	return New(config)
}

func TestStandinTakesTheCredential(t *testing.T) {
	for _, test := range []struct{ options, want string }{
		{`["setimsoauth", "setimsauth", "setimsjwtauth"]`, "setimsoauth"},
		{`["setimsauth", "setimsjwtauth"]`, "setimsauth"},
		{`["setimsjwtauth"]`, "setimsjwtauth"},
	} {
		h := newStandinHome(t)
		h.Faults(`{"options": ` + test.options + `}`)
		n := h.server()
		said, err := n.set(t.Context(), "prod", nlTestCredential, nil)
		if err != nil {
			t.Fatal(err)
		}
		mustHide(t, said)
		if got := h.Read("conf/config-prod.xml"); !strings.Contains(got, nlTestCredential.TechnicalAccountID) {
			t.Errorf("%s: the credential is not in %s", test.want, got)
		}
		runs := h.Read("var/standin/runs.jsonl")
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
	n := h.server(func(c *Config) { c.EnvScript, c.Command = "", "setimsoauth" })
	_, err := n.set(t.Context(), "prod", nlTestCredential, nil)
	mustSay(t, err, "exit status 127", "error while loading shared libraries")
}

func TestStandinRefusals(t *testing.T) {
	h := newStandinHome(t)
	n := h.server()
	_, err := n.set(t.Context(), "nosuch", nlTestCredential, nil)
	mustSay(t, err, "instance nosuch", "exit status 1", "(iRc=")
	h.Faults(`{"options": []}`)
	_, err = h.server().set(t.Context(), "prod", nlTestCredential, nil)
	mustSay(t, err, "lists none of -setimsoauth", "7.4.1 build 9383")
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
			h.Faults(switches)
			c := nlTestCredential
			c.ClientSecret = credential.NewSecret(secret)
			var log bytes.Buffer
			n := h.server(func(config *Config) {
				config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			said, err := n.set(t.Context(), "prod", c, nil)
			said += log.String() + fmt.Sprint(err)
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
	h.Faults(`{"hang": true, "ignore_sigterm": true, "fork_child": "1h"}`)
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	n := h.server(func(c *Config) { c.Timeout = 10 * time.Second })
	_, err = n.set(t.Context(), "prod", nlTestCredential, lock)
	lock.Close()
	mustSay(t, err, "stopped after 10s", "stand-in waits: hang")
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
	for _, step := range Steps(true, []string{"web", "pipelined"}, "prod") {
		if err := n.activate(t.Context(), step, time.Time{}); err != nil {
			t.Error(err)
		}
	}
	h.Faults(`{"restart_fail": ["pipelined@prod"], "reload_fail": true, "on": ["restart", "reload"]}`)
	if err := n.activate(t.Context(), stepOf("restart web"), time.Time{}); err != nil {
		t.Error(err)
	}
	mustSay(t, n.activate(t.Context(), stepOf("restart pipelined@prod"), time.Time{}), "nlserver restart pipelined@prod: exit status 1", "(iRc=")
	mustSay(t, n.activate(t.Context(), stepOf("reload"), time.Time{}), "nlserver config -reload: exit status 1", "(iRc=")
}
