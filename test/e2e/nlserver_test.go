package e2e_test

import (
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// An nlserver from before 7.4.1 has another option for the same.
func TestOlderNlserver(t *testing.T) {
	t.Parallel()
	for _, option := range []string{"setimsauth", "setimsjwtauth"} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			w.Faults(`{"options": ["` + option + `"]}`)
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", secret)
			runs, err := w.Runs()
			w.Must(err)
			for _, r := range runs {
				if r.Kind == "set" && r.Option != option {
					t.Errorf("it was run with %s", r.Option)
				}
			}
		})
	}
}
