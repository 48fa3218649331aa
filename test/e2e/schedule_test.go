package e2e_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// Activation that is held for its time is what the configuration asks for: no failure, and nothing else waits for it.
func TestActivationIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{Settings: `schedule: {activate: "0 3 1 1 *"}`})
	_, first := w.rotate("prod")
	w.start()
	if reason := w.is("prod", "activation_pending"); reason != "" {
		t.Errorf("it is called trouble: %s", reason)
	}
	w.holds("prod", first)
	w.exits(0, "activation_pending", "sync")
	w.exits(3, "activation waits: reload", "diff")
	w.exits(3, "activation_pending", "status")
	_, second := w.rotate("prod")
	w.onDisk("prod", second)
	w.blank("prod")
	w.onDisk("prod", second)
	w.ran(0, "start", "reload")
	// It is no longer held: done at once, and once for both versions.
	w.reconfigure(func(o *container.Options) {
		o.Settings = strings.Replace(o.Settings, `activate: "0 3 1 1 *"`, `activate: ""`, 1)
	})
	w.hangUp()
	w.inSync(2)
	w.ran(1, "end", "reload")
	w.ran(2, "end", "set")
}

// schedule.reapply runs nlserver again though all is in sync, and what it writes is no drift.
func TestReapply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{Settings: `schedule: {reapply: "@every 2s"}`})
	_, secret := w.rotate("prod")
	w.start()
	w.eventually("it is applied again", func() bool { return w.runs("end", "set") >= 3 })
	w.await("in sync", func(s container.Status) bool { return s.Applied(1) && one(s, "prod").RevertedTotal == 0 })
	w.holds("prod", secret)
}

// Drift that Campaign's processes may have loaded is activated after its revert; what lasted an instant is not.
func TestActivationAfterDrift(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	w.pass()
	w.blank("prod")
	w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	w.pass()
	w.ran(1, "end", "reload")
	time.Sleep(2200 * time.Millisecond) // from 2 s on it counts
	w.blank("prod")
	w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 2 && s.Is("in_sync") })
	w.pass()
	w.ran(2, "end", "reload")
	w.holds("prod", secrets["prod"])
	w.ran(1, "end", "set")
}

// A JWT credential has a private key, which is a secret as well.
func TestPrivateKey(t *testing.T) {
	t.Parallel()
	for _, option := range []string{"setimsjwtauth", "setimsoauth"} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, container.Options{})
			w.faults(`{"options": ["` + option + `"], "print_secret": true}`)
			body := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", 2)
			key := "-----BEGIN PRIVATE KEY-----\n" + body + "\n" + body + "\n-----END PRIVATE KEY-----\n"
			w.secrets = append(w.secrets, body, strings.TrimSuffix(key, "\n"))
			secret := "p8e-" + strings.Repeat("k", 32)
			data := container.Credential(secret)
			data["private_key"] = key
			w.write("prod", data)
			w.start()
			w.inSync(1)
			w.holds("prod", secret)
			had := w.attribute("prod", "authIMSTAPrivateKey")
			if (had != "") != (option == "setimsjwtauth") {
				t.Errorf("the key in the file: %q", had)
			}
			w.edits("prod", func(d []byte) []byte {
				if had != "" {
					return replaced(t, d, had, "@c3RvbGVu")
				}
				return replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey="@c3RvbGVu" authIMSTAId="`)
			})
			w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
			if got := w.attribute("prod", "authIMSTAPrivateKey"); got != had {
				t.Errorf("the key in the file is %q, want %q", got, had)
			}
			// Only the key changes.
			data["private_key"] = strings.ToLower(body[:40])
			w.secrets = append(w.secrets, strings.ToLower(body[:40]))
			w.write("prod", data)
			w.signal(syscall.SIGUSR1)
			w.inSync(2)
			w.ran(2, "end", "set")
			data["private_key"] = "not base64!"
			w.write("prod", data)
			w.signal(syscall.SIGUSR1)
			w.eventually("it is kept", func() bool {
				s, err := w.Asker().Status(w.ctx)
				return err == nil && one(s, "prod").WantedVersion == 3 && one(s, "prod").State != "in_sync"
			})
			w.holds("prod", secret)
		})
	}
}
