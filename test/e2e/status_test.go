package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/control"
	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// document is what status --json prints now; no field is left over.
func document(w *world.World) (d control.Status) {
	w.T.Helper()
	stdout, stderr, _ := w.RunCommand("status", "--json")
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		w.T.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	return d
}

// status --json has the documented keys and no other, and times in UTC.
func TestStatusDocument(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.StartDaemon()
	check := func() {
		t.Helper()
		stdout, _, _ := w.RunCommand("status", "--json")
		var d struct {
			Instances []map[string]any `json:"instances"`
			Warnings  []any            `json:"warnings"`
			Vault     map[string]any   `json:"vault"`
			Daemon    map[string]any   `json:"daemon"`
		}
		decoder := json.NewDecoder(strings.NewReader(stdout))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&d); err != nil || len(d.Instances) != 1 || d.Warnings == nil || len(d.Warnings) > 0 {
			t.Fatalf("%s: %v", stdout, err)
		}
		sameKeys(t, d.Instances[0], "name", "state", "reason", "since", "wanted_version", "applied_version", "applied_at", "activated_at",
			"last_check", "next_retry_at", "paused_until", "activated_version", "proven", "drift_reverted_total", "last_error")
		sameKeys(t, d.Vault, "used", "reachable", "token_expires_at", "secret_id_expires_at", "last_poll")
		sameKeys(t, d.Daemon, "version", "started_at", "config_file", "config_loaded_at", "reload_error")
		for _, values := range []map[string]any{d.Instances[0], d.Vault, d.Daemon} {
			for key, value := range values {
				text, isText := value.(string)
				if !isText || !regexp.MustCompile(`_at$|^since$|^paused_until$|^last_(check|poll)$`).MatchString(key) {
					continue
				}
				if at, err := time.Parse(time.RFC3339, text); err != nil || !strings.HasSuffix(text, "Z") || time.Since(at).Abs() > 1000*time.Hour {
					t.Errorf("%s is %q", key, text)
				}
			}
		}
	}
	w.Is("prod", "blocked")
	check()
	w.NewSecret("prod")
	w.InSync(1)
	check()
	in, p := document(w).Instances[0], document(w).Daemon
	if in.Reason != "" || in.Since.IsZero() || in.AppliedAt.IsZero() || in.ActivatedAt.IsZero() || in.LastCheck.IsZero() || in.ActivatedVersion != 1 {
		t.Errorf("in sync: %+v", in)
	}
	if p.Version == "" || p.StartedAt.IsZero() || p.ConfigFile != w.Config || p.ConfigLoadedAt.Before(p.StartedAt.Time) {
		t.Errorf("the daemon: %+v", p)
	}
	w.HangUp()
	w.Eventually("the configuration is the new one, of the same daemon", func() bool {
		now := document(w).Daemon
		return now.ConfigLoadedAt.After(p.ConfigLoadedAt.Time) && now.StartedAt.Equal(p.StartedAt.Time)
	})
}

func sameKeys(t *testing.T, object map[string]any, want ...string) {
	t.Helper()
	got := slices.Sorted(maps.Keys(object))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("keys are %q, want %q", got, want)
	}
}

// Without a secret in Vault nothing is said of Vault.
func TestStatusWithoutVault(t *testing.T) {
	t.Parallel()
	v := newVolume(t, container.Options{}, "")
	v.StartDaemon()
	if got := v.Exits(3, "", "status", "--json"); !strings.Contains(got, `"vault":{"used":false}`) {
		t.Errorf("it says %s", got)
	}
	v.Exits(3, "vault: not used", "status")
}

// Each trouble has its reason, when it began, when the next attempt comes, and what to do about it.
func TestStatusTellsWhyAndWhatToDo(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	become := func(state, reason string, change func()) {
		t.Helper()
		before := time.Now()
		change()
		var in = document(w).Instances[0]
		w.Eventually(state+" because of "+reason, func() bool {
			in = document(w).Instances[0]
			return string(in.State) == state && string(in.Reason) == reason
		})
		if in.Since.Before(before) || in.Since.After(time.Now()) {
			t.Errorf("%s since %v, and it began at %v or later", reason, in.Since, before)
		}
		if in.NextRetryAt.IsZero() != (reason == "") || time.Until(in.NextRetryAt.Time) > 2*time.Minute {
			t.Errorf("%s: next attempt at %v", reason, in.NextRetryAt)
		}
		if again := document(w).Instances[0]; again.Reason == in.Reason && !again.Since.Equal(in.Since.Time) {
			t.Errorf("%s since %v, and a moment later since %v", reason, in.Since, again.Since)
		}
		if reason != "" {
			text := strings.Join(strings.Fields(w.Exits(3, "prod: "+reason+", next attempt ", "status")), " ")
			if !strings.Contains(text, control.Remedy(in.Reason)) {
				t.Errorf("it does not say what to do: %s", text)
			}
		}
	}
	become("blocked", "secret_missing", w.StartDaemon)
	become("in_sync", "", func() { w.NewSecret("prod") })
	become("blocked", "secret_malformed", func() { w.WriteSecret("prod", map[string]any{"client_id": "x"}) })
	become("blocked", "secret_deleted", func() { w.Must(w.Vault.Delete(w.Ctx, w.SecretPath("prod"), 2)) })
	become("in_sync", "", func() { w.NewSecret("prod") })
	become("degraded", "vault_unreachable", w.Proxy.Down)
	become("in_sync", "", func() { w.Must(w.Proxy.Up()) })
	text := w.Read("prod")
	become("degraded", "file_missing", func() { w.Must(os.Remove(w.File("prod"))) })
	become("in_sync", "", func() { w.Must(os.WriteFile(w.File("prod"), text, 0o640)) })
	w.Exits(0, "in_sync", "status")
}

// A reload that was rejected is told until a good one comes: status, exit status, metric, and one event each.
func TestRejectedReloadIsTold(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	const metric = "campaign_credsync_config_last_reload_successful"
	w.Exits(0, metric+" 1\n", "status", "--prometheus")
	w.Exits(0, "campaign_credsync_config_last_reload_success_timestamp_seconds", "status", "--prometheus")
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, append(bytes.Clone(good), "\nno_such_key: 1\n"...), 0o600))
	refused(w, "no_such_key")
	d := document(w)
	if !d.InSync() || !strings.Contains(d.Daemon.ReloadError, "no_such_key") || !d.Warns(control.WarnReloadRejected) || len(d.Warnings) != 1 {
		t.Errorf("it says %+v", d)
	}
	w.Exits(3, "warning reload_rejected: ", "status")
	w.Exits(3, `"reload_rejected"`, "status", "--json")
	w.Exits(3, metric+" 0\n", "status", "--prometheus")
	w.Exits(3, `campaign_credsync_warning{code="reload_rejected"} 1`, "status", "--prometheus")
	if n := strings.Count(w.Exits(0, "no_such_key", "history"), "reload_rejected"); n != 1 {
		t.Errorf("%d events", n)
	}

	w.Must(os.WriteFile(w.Config, good, 0o600))
	w.HangUp()
	w.Eventually("a good one has ended that", func() bool { d := document(w); return d.Daemon.ReloadError == "" && len(d.Warnings) == 0 })
	w.Exits(0, metric+" 1\n", "status", "--prometheus")
	if n := strings.Count(w.Exits(0, "", "history", "--json"), `"event":"reloaded"`); n != 1 {
		t.Errorf("%d events of reloads", n)
	}
}

// terminal is a terminal that a command has for its output, and what was shown there.
type terminal struct {
	user  *os.File
	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty := &terminal{}
	if tty.user, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 64<<10)
		for {
			n, err := master.Read(buffer)
			tty.mu.Lock()
			tty.shown.Write(buffer[:n])
			tty.mu.Unlock()
			if err != nil { // nobody has the other end any more
				return
			}
		}
	}()
	t.Cleanup(func() { tty.user.Close(); <-read; master.Close() })
	return tty
}

// text is what was shown since the last call.
func (tty *terminal) text() string {
	tty.mu.Lock()
	defer tty.mu.Unlock()
	defer tty.shown.Reset()
	return tty.shown.String()
}

// Colour is for terminals, and not with NO_COLOR; and everything fits.
func TestStatusOnATerminal(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"prod", "mid-stage"}, Settings: `schedule: {activate: "0 0 29 2 *"}`,
		Campaign: "activate: {restart: [pipelined]}"})
	w.NewSecret("prod")
	w.NewSecret("mid-stage")
	w.StartDaemon()
	w.Is("prod", "activation_pending")
	w.Is("mid-stage", "activation_pending")
	text := w.Read("mid-stage")
	w.Must(os.Remove(w.File("mid-stage")))
	defer func() { w.Must(os.WriteFile(w.File("mid-stage"), text, 0o640)) }()
	w.Is("mid-stage", "degraded")
	shown := func(env ...string) string {
		t.Helper()
		tty := newTerminal(t)
		c := exec.Command(world.Plain().Command, "--config", w.Config, "status")
		c.Stdout, c.Env = tty.user, append(os.Environ(), env...)
		if err := c.Run(); c.ProcessState.ExitCode() != 3 {
			t.Errorf("it ended with %v", err)
		}
		var text string
		w.Eventually("the status is shown", func() bool {
			text += tty.text()
			return strings.Contains(text, "daemon:") && strings.HasSuffix(text, "\n")
		})
		return text
	}
	coloured := shown("NO_COLOR=")
	if !strings.Contains(coloured, "\x1b[31mdegraded\x1b[0m") || !strings.Contains(coloured, "\x1b[33mactivation_pending\x1b[0m") {
		t.Errorf("no colour: %q", coloured)
	}
	if plain := shown("NO_COLOR=1"); strings.Contains(plain, "\x1b") {
		t.Errorf("with NO_COLOR: %q", plain)
	}
	piped := w.Exits(3, "activation_pending", "status")
	if strings.Contains(piped, "\x1b") {
		t.Errorf("in a pipe: %q", piped)
	}
	for line := range strings.Lines(piped) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 && strings.ContainsAny(strings.TrimSpace(line), " ") && !strings.Contains(line, w.Dir) {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// On a terminal --watch draws in place, coloured, and goes on over a restart of the daemon.
func TestStatusWatchOnATerminal(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	tty := newTerminal(t)
	watch := exec.CommandContext(w.Ctx, world.Plain().Command, "--config", w.Config, "status", "--watch")
	watch.Stdout, watch.Env = tty.user, append(os.Environ(), "NO_COLOR=")
	w.Must(watch.Start())
	expect := func(what ...string) {
		t.Helper()
		all := ""
		w.Eventually(fmt.Sprintf("it shows %q", what), func() bool {
			all += tty.text()
			return !slices.ContainsFunc(what, func(text string) bool { return !strings.Contains(all, text) })
		})
		w.Printed.WriteString(all)
	}
	expect("\x1b[H", "\x1b[J", "\x1b[32min_sync\x1b[0m")
	w.Stop()
	expect("no daemon answers", "last that it said")
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(2)
	tty.text()
	expect("\x1b[H", "\x1b[32min_sync\x1b[0m")
	w.Must(watch.Process.Signal(syscall.SIGINT))
	if err := watch.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// status --watch prints again at each change and ends when it is interrupted.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		w, _ := world.Started(t, container.Options{})
		args := []string{"--config", w.Config, "status", "--watch"}
		if asJSON {
			args = append(args, "--json")
		}
		watch := exec.Command(world.Plain().Command, args...)
		r, pipe, err := os.Pipe()
		w.Must(err)
		watch.Stdout = pipe
		w.Must(watch.Start())
		pipe.Close()
		shown := make(chan string, 100)
		go func() {
			defer close(shown)
			buffer := make([]byte, 64<<10)
			for {
				n, err := r.Read(buffer)
				if err != nil {
					return
				}
				shown <- string(buffer[:n])
			}
		}()
		expect := func(what string) {
			t.Helper()
			timeout := time.After(world.Patience)
			for all := ""; !strings.Contains(all, what); {
				select {
				case text := <-shown:
					all += text
				case <-timeout:
					t.Fatalf("it never showed %q: %s", what, all)
				}
			}
		}
		expect("in_sync")
		w.NewSecret("prod")
		w.Proxy.Down()
		expect("degraded")
		w.Must(w.Proxy.Up())
		w.Pass()
		expect("in_sync")
		w.Stop()
		w.NewSecret("prod")
		w.StartDaemon() // another daemon, and another status
		expect("in_sync")
		w.Must(watch.Process.Signal(syscall.SIGINT))
		if err := watch.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		r.Close()
	}
}
