package faults_test

import (
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Vault is away for long, for a daemon that has a token and for one that has to log in first. It guards what is applied, tells it
// once, and comes back by itself within the cap of its waits.
func TestVaultIsAwayForLong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		restart bool
	}{{"with a token", false}, {"before the login", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{})
			if c.restart {
				w.Stop()
			}
			w.Proxy.Down()
			if c.restart {
				w.StartDaemon()
			}
			tries := 4
			if *full {
				tries = 14 // the waits have grown to the cap
			}
			within(w, 15*time.Minute, "it has tried often", func() bool {
				return strings.Count(w.Running.Log(), `msg="source unreachable, keeping the applied credential"`) >= tries
			})
			w.Is("prod", "degraded/vault_unreachable", w.Proxy.Address, "is Vault running")
			keepsAndGuards(w, secrets["prod"])
			told := 0
			for line := range strings.Lines(w.Running.Log()) {
				if (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && !strings.Contains(line, "drift reverted") {
					told++
				}
			}
			if told != 1 {
				t.Errorf("the outage was told %d times\n%s", told, w.Log())
			}
			version, secret := w.NewSecret("prod")
			w.Must(w.Proxy.Up())
			within(w, 75*time.Second, "it is back by itself", func() bool {
				s, err := w.Asker().Status(w.Ctx)
				return err == nil && world.One(s, "prod").AppliedVersion == version
			})
			w.InSync(version)
			w.Holds("prod", secret)
		})
	}
}
