package e2e_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Activation that is held for its time is what the configuration asks for: no failure, and nothing else waits for it.
func TestActivationIsHeld(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Settings: `schedule: {activate: "0 3 1 1 *"}`})
	_, first := w.NewSecret("prod")
	w.StartDaemon()
	if reason := w.Is("prod", "activation_pending/window"); reason != "" {
		t.Errorf("it is called trouble: %s", reason)
	}
	w.Holds("prod", first)
	w.Exits(0, "activation_pending", "sync")
	w.Exits(3, "activation waits: reload", "diff")
	w.Exits(3, "activation_pending", "status")
	_, second := w.NewSecret("prod")
	w.Applied("prod", 2)
	w.Holds("prod", second)
	w.Blank("prod")
	w.OnDisk("prod", second)
	w.Ran(0, "start", "reload")
	// It is no longer held: done at once, and once for both versions.
	w.Reconfigured(func(o *container.Options) {
		o.Settings = strings.Replace(o.Settings, `activate: "0 3 1 1 *"`, `activate: ""`, 1)
	})
	w.HangUp()
	w.InSync(2)
	w.Ran(1, "end", "reload")
	w.Ran(2, "end", "set")
}

// schedule.reapply runs nlserver again though all is in sync, and what it writes is no drift.
func TestReapply(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Settings: `schedule: {reapply: "@every 2s"}`})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.Eventually("it is applied again", func() bool { return w.CountRuns("end", "set") >= 3 })
	w.AwaitStatus("in sync", func(s container.Status) bool { return s.Applied(1) && world.One(s, "prod").RevertedTotal == 0 })
	w.OnDisk("prod", secret) // an nlserver may be writing
}

// Drift that lasted an instant is not activated after its revert, however long ago the last look was; see also
// TestLongDriftIsActivated.
func TestActivationAfterDrift(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Pass()
	reverts := 0
	for _, pause := range []time.Duration{0, 2200 * time.Millisecond} {
		for instant := false; !instant; { // again, where the machine was busy
			time.Sleep(pause)
			before := w.CountRuns("end", "reload")
			began := time.Now()
			w.Blank("prod")
			reverts++
			w.AwaitStatus("the revert", func(s container.Status) bool {
				return world.One(s, "prod").RevertedTotal == reverts && s.Is("in_sync")
			})
			instant = time.Since(began) <= time.Second
			w.Pass()
			if instant {
				w.Ran(before, "end", "reload")
			}
		}
	}
	w.Holds("prod", secrets["prod"])
	w.Ran(1, "end", "set")
}

// A JWT credential has a private key, which is a secret as well.
func TestPrivateKey(t *testing.T) {
	t.Parallel()
	for _, option := range []string{"setimsjwtauth", "setimsoauth"} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			w.Faults(`{"options": ["` + option + `"], "print_secret": true}`)
			body := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", 2)
			key := "-----BEGIN PRIVATE KEY-----\n" + body + "\n" + body + "\n-----END PRIVATE KEY-----\n"
			w.Secrets = append(w.Secrets, body, strings.TrimSuffix(key, "\n"))
			secret := "p8e-" + strings.Repeat("k", 32)
			data := container.Credential(secret)
			data["private_key"] = key
			w.WriteSecret("prod", data)
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", secret)
			had := w.Attribute("prod", "authIMSTAPrivateKey")
			if (had != "") != (option == "setimsjwtauth") {
				t.Errorf("the key in the file: %q", had)
			}
			w.Edits("prod", func(d []byte) []byte {
				if had != "" {
					return world.Replaced(t, d, had, "@c3RvbGVu")
				}
				return world.Replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey="@c3RvbGVu" authIMSTAId="`)
			})
			w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
			if got := w.Attribute("prod", "authIMSTAPrivateKey"); got != had {
				t.Errorf("the key in the file is %q, want %q", got, had)
			}
			// Only the key changes.
			data["private_key"] = strings.ToLower(body[:40])
			w.Secrets = append(w.Secrets, strings.ToLower(body[:40]))
			w.WriteSecret("prod", data)
			w.Signal(syscall.SIGUSR1)
			w.InSync(2)
			w.Ran(2, "end", "set")
			data["private_key"] = "not base64!"
			w.WriteSecret("prod", data)
			w.Signal(syscall.SIGUSR1)
			w.Eventually("it is kept", func() bool {
				s, err := w.Asker().Status(w.Ctx)
				return err == nil && world.One(s, "prod").WantedVersion == 3 && world.One(s, "prod").State != "in_sync"
			})
			w.Holds("prod", secret)
		})
	}
}
