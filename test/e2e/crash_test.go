package e2e_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// waits waits until a run of the stand-in says that it waits at a fault.
func (w *world) waits(at string) container.Run {
	w.t.Helper()
	var found container.Run
	w.eventually("a run waits at "+at, func() bool {
		runs, err := w.Runs()
		if err != nil {
			return false
		}
		i := slices.IndexFunc(runs, func(r container.Run) bool { return r.Event == "waiting" && r.At == at })
		if i >= 0 {
			found = runs[i]
		}
		return i >= 0
	})
	return found
}

// The daemon is killed while nlserver has the file empty; nlserver lives on. The next daemon waits for it and starts no
// second one beside it (finish looks for that), whatever it leaves behind.
func TestKilledWhileNlserverWrites(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, faults string }{
		{"finishes", ``},
		{"leaves the file empty", `, "write_empty": true`},
		{"leaves half", `, "write_half": true`},
		{"leaves garbage", `, "garbage": true`},
		{"dies", `, "write_half": true, "die": true`},
		{"fails after", `, "fail": "after"`},
	} {
		for _, first := range []bool{true, false} {
			name := c.name + map[bool]string{true: "/first apply", false: "/rotation"}[first]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, container.Options{})
				if first {
					w.setByHand("p8e-" + strings.Repeat("h", 32))
				} else {
					w.rotate("prod")
					w.start()
					w.inSync(1)
				}
				sets := w.runs("start", "set")
				w.faults(`{"write_delay": "1500ms", "times": 1` + c.faults + `}`)
				next, secret := w.rotate("prod")
				if first {
					w.start()
				} else {
					w.signal(syscall.SIGUSR1)
				}
				w.waits("write_delay")
				w.kill()
				w.start()
				w.is("prod", "degraded", "still running")
				if got := w.runs("start", "set"); got != sets+1 {
					t.Errorf("%d more runs while one is at work", got-sets-1)
				}
				w.eventually("it ends", func() bool {
					w.signal(syscall.SIGUSR1)
					s, err := w.Asker().Status(w.ctx)
					return err == nil && one(s, "prod").State == "in_sync" && one(s, "prod").AppliedVersion == next
				})
				w.holds("prod", secret)
			})
		}
	}
}

// The same with Vault gone: what nlserver left is what there is, and the old credential comes back where it left damage.
func TestKilledWhileNlserverWritesAndVaultGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, faults string
		damaged      bool
	}{
		{"finishes", ``, false},
		{"leaves the file empty", `, "write_empty": true`, true},
		{"leaves half", `, "write_half": true`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := started(t, container.Options{})
			w.faults(`{"write_delay": "1500ms", "times": 1` + c.faults + `}`)
			_, second := w.rotate("prod")
			w.signal(syscall.SIGUSR1)
			w.waits("write_delay")
			w.kill()
			w.Proxy.Down()
			w.start()
			want := second
			if c.damaged {
				want = secrets["prod"]
			}
			w.eventually("the file is whole", func() bool {
				w.signal(syscall.SIGUSR1)
				got, err := w.SecretOnDisk(w.ctx, "prod")
				return err == nil && got == want
			})
			s := w.pass()
			if s.Is("in_sync") || one(s, "prod").AppliedVersion != 1 {
				t.Errorf("%+v", s)
			}
			w.must(w.Proxy.Up())
			w.signal(syscall.SIGUSR1)
			w.inSync(2)
			w.holds("prod", second)
		})
	}
}

// kill -9 at any moment around an apply: the next start ends in sync, with nothing left behind.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{Campaign: "activate: {restart: [web, pipelined]}"})
	for range 12 {
		version, secret := w.rotate("prod")
		w.signal(syscall.SIGUSR1)
		time.Sleep(rand.N(60 * time.Millisecond)) // any moment will do
		w.kill()
		w.start()
		w.eventually("in sync again", func() bool {
			s, err := w.Asker().Status(w.ctx)
			if err == nil && one(s, "prod").State == "degraded" {
				w.signal(syscall.SIGUSR1) // it waits for an nlserver that lived on
			}
			return err == nil && s.Applied(version)
		})
		w.holds("prod", secret)
		if t.Failed() {
			return
		}
	}
}

// Activation that was pending at the kill is done after it, and the steps that were done are not repeated.
func TestKilledInActivation(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"reload", "restart"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, container.Options{Campaign: "activate: {restart: [web, pipelined]}"})
			w.faults(`{"on": ["` + step + `"], "hang": true}`)
			_, secret := w.rotate("prod")
			w.start()
			w.waits("hang")
			w.is("prod", "activation_pending")
			w.kill()
			w.endLeftRuns()
			w.faults("")
			w.start()
			w.inSync(1)
			w.holds("prod", secret)
			w.ran(1, "end", "set")
			w.ran(1, "end", "reload")
			w.ran(1, "end", "restart", "web")
			w.ran(1, "end", "restart", "pipelined@prod")
		})
	}
}

// State that is lost or spoiled costs one apply, and never a credential.
func TestSpoiledState(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
	}{
		{"all gone", os.RemoveAll},
		{"record empty", func(dir string) error { return os.WriteFile(filepath.Join(dir, "prod.json"), nil, 0o600) }},
		{"record cut", func(dir string) error { return os.Truncate(filepath.Join(dir, "prod.json"), 100) }},
		{"record of the future", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "prod.json"), []byte(`{"format": 2}`), 0o600)
		}},
		{"record is a folder", func(dir string) error {
			os.Remove(filepath.Join(dir, "prod.json"))
			return os.Mkdir(filepath.Join(dir, "prod.json"), 0o700)
		}},
		{"key gone", func(dir string) error { return os.Remove(filepath.Join(dir, "digest.key")) }},
		{"key cut", func(dir string) error { return os.Truncate(filepath.Join(dir, "digest.key"), 5) }},
		{"half a record beside", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "prod.json.partial"), []byte(`{"form`), 0o600)
		}},
		{"an old pre-image", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "prod.before"), []byte("<serverconf/>"), 0o600)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := started(t, container.Options{})
			w.stop()
			w.must(c.spoil(w.StateDir()))
			w.start()
			if c.name == "record is a folder" {
				w.holds("prod", secrets["prod"])
				w.must(os.Remove(filepath.Join(w.StateDir(), "prod.json")))
				w.signal(syscall.SIGUSR1)
			}
			w.inSync(1)
			w.holds("prod", secrets["prod"])
			w.write("prod", container.Credential(secrets["prod"]))
			w.pass()
			w.inSync(2)
			w.blank("prod")
			w.onDisk("prod", secrets["prod"])
			if got := w.runs("end", "set"); got > 2 {
				t.Errorf("%d applies", got)
			}
		})
	}
}
