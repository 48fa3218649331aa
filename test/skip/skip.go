// Package skip leaves out tests that cannot run on a machine, and does not let that pass unseen in CI.
package skip

import (
	"os"
	"testing"
)

// Unable skips the test because of why. With CI=true, where everything must be there, it fails it.
func Unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("cannot run, and CI has to: %s", why)
	}
	t.Skip(why)
}
