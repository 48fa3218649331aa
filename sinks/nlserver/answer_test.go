package nlserver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A restart that prints without end ends all the same, fills no memory, and the begin of its output is read.
func TestAskRestartThatPrintsWithoutEnd(t *testing.T) {
	h := newFakeHome(t, "echo 'module starts'; yes 'still loading' 2>/dev/null; wc -c </proc/$$/fd/1 >$H/size; exit 0")
	n := h.server(func(c *Config) { c.StateDir = t.TempDir() })
	answer, err := n.AskRestart(t.Context(), "web", "prod", "MARK=1")
	if err != nil || answer.Ended != "exit 0" || !slices.Contains(answer.Lines, "module starts") {
		t.Errorf("%+v, %v", answer, err)
	}
	if size := strings.TrimSpace(h.read("size")); size != fmt.Sprint(maxAnswer) {
		t.Errorf("its output takes %s bytes", size)
	}
}
