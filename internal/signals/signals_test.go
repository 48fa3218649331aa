package signals

import (
	"strings"
	"testing"
)

// Only the daemon takes SIGHUP and SIGUSR1; a word of another command's arguments is not its name.
func TestIsRun(t *testing.T) {
	for args, want := range map[string]bool{
		"":                            false,
		"run":                         true,
		"--config x run":              true,
		"--config=x run":              true,
		"--config run status":         false,
		"pause --for 1h --reason run": false,
		"sync --instance run":         false,
		"--config run":                false,
		"run --config x":              true,
	} {
		if got := isRun(strings.Fields(args)); got != want {
			t.Errorf("%q: %v", args, got)
		}
	}
}
