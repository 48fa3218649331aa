package faults_test

import (
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// nlserver writes nothing, while an editor writes another part of the file: that write is not taken for nlserver's.
func TestOthersWriteIsNotTakenForNlservers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, fault string }{
		{"fails", `"fail": "before"`},
		{"claims success", `"no_write": true`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{})
			w.Faults(`{"start_delay": "10m", ` + c.fault + `}`)
			version, secret := w.NewSecret("prod")
			w.Signal(syscall.SIGUSR1)
			w.WaitsAt("start_delay")
			w.Edits("prod", func(d []byte) []byte { return append(d, "<!-- meanwhile -->\n"...) })
			w.Release()
			w.Logged("credential not applied")
			w.Is("prod", "pending")
			w.Holds("prod", secrets["prod"])
			w.Faults("")
			w.Pass()
			w.InSync(version)
			w.Holds("prod", secret)
		})
	}
}
