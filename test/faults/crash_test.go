package faults_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

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
				w := world.New(t, container.Options{Campaign: applyAtOnce})
				if first {
					w.SetByHand("p8e-" + strings.Repeat("h", 32))
				} else {
					w.NewSecret("prod")
					w.StartDaemon()
					w.InSync(1)
				}
				sets := w.CountRuns("start", "set")
				w.Faults(`{"write_delay": "10m", "times": 1` + c.faults + `}`)
				next, secret := w.NewSecret("prod")
				if first {
					w.StartDaemon()
				} else {
					w.Signal(syscall.SIGUSR1)
				}
				w.WaitsAt("write_delay")
				w.Kill()
				w.StartDaemon()
				w.Is("prod", "degraded/recovering", "still running")
				if got := w.CountRuns("start", "set"); got != sets+1 {
					t.Errorf("%d more runs while one is at work", got-sets-1)
				}
				w.Release()
				w.Eventually("it ends", func() bool {
					w.Signal(syscall.SIGUSR1)
					s, err := w.Asker().Status(w.Ctx)
					return err == nil && world.One(s, "prod").State == "in_sync" && world.One(s, "prod").AppliedVersion == next
				})
				w.Holds("prod", secret)
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
			w, secrets := world.Started(t, container.Options{})
			w.Faults(`{"write_delay": "10m", "times": 1` + c.faults + `}`)
			_, second := w.NewSecret("prod")
			w.Signal(syscall.SIGUSR1)
			w.WaitsAt("write_delay")
			w.Kill()
			w.Proxy.Down()
			w.StartDaemon()
			w.Is("prod", "degraded/recovering", "still running")
			w.Release()
			want := second
			if c.damaged {
				want = secrets["prod"]
			}
			w.Eventually("the file is whole", func() bool {
				w.Signal(syscall.SIGUSR1)
				got, err := w.SecretOnDisk(w.Ctx, "prod")
				return err == nil && got == want
			})
			s := w.Pass()
			if s.Is("in_sync") || world.One(s, "prod").AppliedVersion != 1 {
				t.Errorf("%+v", s)
			}
			w.Must(w.Proxy.Up())
			w.Signal(syscall.SIGUSR1)
			w.InSync(2)
			w.Holds("prod", second)
		})
	}
}

// Daemon and nlserver are killed together while the file is empty: the next daemon puts back what was there before, also while
// Vault is gone, and applies again.
func TestKilledTogetherWithNlserver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		first, gone bool
	}{
		{"first apply", true, false},
		{"rotation", false, false},
		{"first apply and Vault gone", true, true},
		{"rotation and Vault gone", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Campaign: applyAtOnce})
			had := "p8e-" + strings.Repeat("h", 32)
			if c.first {
				w.SetByHand(had)
			} else {
				_, had = w.NewSecret("prod")
				w.StartDaemon()
				w.InSync(1)
			}
			w.Faults(`{"hang_after_truncate": true, "times": 1}`)
			next, secret := w.NewSecret("prod")
			if c.first {
				w.StartDaemon()
			} else {
				w.Signal(syscall.SIGUSR1)
			}
			run := w.WaitsAt("hang_after_truncate")
			w.Signal(syscall.SIGSTOP) // it is not to see that nlserver ends
			w.Must(syscall.Kill(run.PID, syscall.SIGKILL))
			w.Kill()
			if len(w.Read("prod")) > 0 {
				t.Fatal("the file is not empty")
			}
			if c.gone {
				w.Proxy.Down()
			}
			w.StartDaemon()
			if c.gone {
				w.OnDisk("prod", had)
				if s := w.Pass(); s.Is("in_sync") {
					t.Errorf("%+v", s)
				}
				w.Must(w.Proxy.Up())
				w.Signal(syscall.SIGUSR1)
			}
			w.InSync(next)
			w.Holds("prod", secret)
		})
	}
}

// kill -9 at any moment around an apply: the next start ends in sync, with nothing left behind.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Campaign: "activate: {restart: [web, pipelined]}"})
	for range 12 {
		version, secret := w.NewSecret("prod")
		w.Signal(syscall.SIGUSR1)
		time.Sleep(rand.N(60 * time.Millisecond)) // any moment will do
		w.Kill()
		w.StartDaemon()
		w.Eventually("in sync again", func() bool {
			s, err := w.Asker().Status(w.Ctx)
			if err == nil && world.One(s, "prod").State == "degraded" {
				w.Signal(syscall.SIGUSR1) // it waits for an nlserver that lived on
			}
			return err == nil && s.Applied(version)
		})
		w.Holds("prod", secret)
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
			w := world.New(t, container.Options{Campaign: "activate: {restart: [web, pipelined]}"})
			w.Faults(`{"on": ["` + step + `"], "hang": true}`)
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.WaitsAt("hang")
			w.Is("prod", "activation_pending")
			w.Kill()
			w.EndLeftRuns()
			w.Faults("")
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", secret)
			w.Ran(1, "end", "set")
			w.Ran(1, "end", "reload")
			w.Ran(1, "end", "restart", "web")
			w.Ran(1, "end", "restart", "pipelined@prod")
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
			w, secrets := world.Started(t, container.Options{Campaign: applyAtOnce})
			w.Stop()
			w.Must(c.spoil(w.StateDir()))
			w.StartDaemon()
			if c.name == "record is a folder" {
				w.Holds("prod", secrets["prod"])
				w.Must(os.Remove(filepath.Join(w.StateDir(), "prod.json")))
				w.Signal(syscall.SIGUSR1)
			}
			w.InSync(1)
			w.Holds("prod", secrets["prod"])
			w.WriteSecret("prod", container.Credential(secrets["prod"]))
			w.Pass()
			w.InSync(2)
			w.Blank("prod")
			w.OnDisk("prod", secrets["prod"])
			if got := w.CountRuns("end", "set"); got > 2 {
				t.Errorf("%d applies", got)
			}
		})
	}
}

// The instance gets another name after a crash in the middle of a run: what was saved of its file is used all the same, and an nlserver that
// lives on is waited for.
func TestRenamedAfterACrash(t *testing.T) {
	t.Parallel()
	for _, livesOn := range []bool{true, false} {
		t.Run(map[bool]string{true: "nlserver lives on", false: "killed with it"}[livesOn], func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{})
			w.Faults(`{"write_delay": "10m", "write_half": true, "times": 1}`)
			w.NewSecret("prod")
			run := w.WaitsAt("write_delay")
			w.Kill()
			if !livesOn {
				w.Must(syscall.Kill(run.PID, syscall.SIGKILL))
			}
			file := w.File("prod")
			w.Reconfigured(func(o *container.Options) {
				o.Instances = []string{"other"}
				o.Extra = map[string]string{"other": "config_file: " + file}
				o.Secrets = map[string]string{"other": "mount: " + w.Vault.Mount + ", path: " + w.SecretPath("prod")}
			})
			w.StartDaemon()
			if livesOn {
				w.Is("other", "degraded/recovering", "still running")
				w.Release()
			}
			w.Is("other", "held")
			w.Holds("prod", secrets["prod"])
			w.Logged("level=ERROR", "nlserver left the configuration file damaged; it was restored")
		})
	}
}
