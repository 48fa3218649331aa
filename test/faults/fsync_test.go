package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Each file on which a promise rests is on disk, content and name, before the daemon goes on: its calls are written, fsync, rename (or
// link), fsync of the directory, in this order.
func TestWritesAreSynced(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	for _, c := range []change{rotation, revert} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startSweep(t, world.Plain())
			s.trace(tracer, "-list")
			s.undisturbed(c)
			if c.name == rotation.name {
				renamedInto(t, s.tracing.calls, filepath.Join(s.w.StateDir(), "prod.json"), 2) // the intent, the outcome
				renamedInto(t, s.tracing.calls, filepath.Join(s.w.StateDir(), "prod.before"), 1)
				syncedBeforeTheLoss(s)
				return
			}
			renamedInto(t, s.tracing.calls, filepath.Join(s.w.StateDir(), "prod.json"), 1)
			exchanged(t, s.tracing.calls, filepath.Dir(s.w.File("prod")))
		})
	}
	t.Run("a secret-id that is refused", func(t *testing.T) {
		t.Parallel()
		s := startSweep(t, world.Plain())
		s.w.Secrets = append(s.w.Secrets, stale)
		s.trace(tracer, "-list")
		s.w.Must(os.WriteFile(s.w.SecretID, []byte(stale+"\n"), 0o600))
		s.w.Logged("login failed", s.w.SecretID, "was refused") // it is tried as soon as it is there
		s.tracing.leave()
		renamedInto(t, s.tracing.calls, filepath.Join(s.w.StateDir(), "refused-secret-id.json"), 2) // before the login, and after it
	})
	t.Run("a secret-id that is unwrapped", func(t *testing.T) {
		t.Parallel()
		w := world.New(t, container.Options{Programs: world.Plain()})
		w.Reconfigured(func(o *container.Options) { o.Login = w.AppRole() + ", secret_id_wrapped: true" })
		wrap := func() {
			token := w.Vault.MustWrappedSecretID(w.RoleID, time.Hour)
			w.Secrets = append(w.Secrets, token)
			w.Must(os.WriteFile(w.SecretID, []byte(token+"\n"), 0o600))
		}
		wrap()
		w.NewSecret("prod")
		w.StartDaemon()
		w.InSync(1)
		kept := filepath.Join(w.StateDir(), "secret-id.key")
		unwrapped := func() int { return strings.Count(w.Running.Log(), "secret-id unwrapped, and kept") }
		before := unwrapped()
		tr := trace(w, tracer, "-list")
		wrap()
		w.Eventually("the new secret-id is kept", func() bool { return unwrapped() > before })
		tr.leave()
		renamedInto(t, tr.calls, kept, 2) // the note that it is about to be unwrapped, and what was
	})
}

// renamedInto demands that a file was replaced so often, and on disk each time.
func renamedInto(t *testing.T, calls []call, path string, times int) {
	t.Helper()
	partial := path + ".partial"
	written := 0
	for i, c := range calls {
		if c.Call != "renameat" || c.On != partial {
			continue
		}
		written++
		write, sync := last(calls[:i], "write", partial), last(calls[:i], "fsync", partial)
		if write < 0 || sync < write {
			t.Errorf("%v: not synced since it was written", c)
		}
		rest := calls[i+1:]
		name := first(rest, "fsync", filepath.Dir(path))
		if again := first(rest, "openat", partial); name < 0 || again >= 0 && again < name {
			t.Errorf("%v: its directory is not synced after it", c)
		}
	}
	if written < times {
		t.Errorf("%s was written %d times, want at least %d", path, written, times)
	}
}

// exchanged demands that a revert's copy is on disk before it gets a name, and its name after the exchange.
func exchanged(t *testing.T, calls []call, conf string) {
	t.Helper()
	exchange := -1
	for i, c := range calls {
		if c.Call == "renameat2" {
			exchange = i
			break
		}
	}
	if exchange < 0 {
		t.Fatal("no exchange")
	}
	named, write, sync := -1, -1, -1
	for i, c := range calls[:exchange] {
		inConf := strings.HasPrefix(c.On, conf+"/")
		switch {
		case c.Call == "linkat" && strings.Contains(c.On, ".credsync-"):
			named = i
		case inConf && (c.Call == "write" || c.Call == "pwrite64"):
			write = i
		case inConf && c.Call == "fsync":
			sync = i
		}
	}
	if write < 0 || sync < write || named < sync {
		t.Errorf("the copy was written by call %d, synced by %d and named by %d", write, sync, named)
	}
	if first(calls[exchange:], "fsync", conf) < 0 {
		t.Error("the directory is not synced after the exchange")
	}
}

// syncedBeforeTheLoss demands that what nlserver wrote is on disk before the file that was saved before goes.
func syncedBeforeTheLoss(s *sweep) {
	s.w.T.Helper()
	calls, file := s.tracing.calls, s.w.File("prod")
	drop := last(calls, "unlinkat", filepath.Join(s.w.StateDir(), "prod.before"))
	saved := last(calls, "renameat", filepath.Join(s.w.StateDir(), "prod.before.partial"))
	if drop < saved || saved < 0 {
		s.w.T.Fatalf("saved by call %d, dropped by %d", saved, drop)
	}
	for _, on := range []string{file, filepath.Dir(file)} {
		if first(calls[saved:drop], "fsync", on) < 0 {
			s.w.T.Errorf("%s is not synced between the run of nlserver and the end of the file saved before it", on)
		}
	}
}

func first(calls []call, name, on string) int {
	for i, c := range calls {
		if c.Call == name && c.On == on {
			return i
		}
	}
	return -1
}

func last(calls []call, name, on string) int {
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Call == name && calls[i].On == on {
			return i
		}
	}
	return -1
}
