package control

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
)

// TestReasonsAreDocumented: each reason has a remedy, and operate.md lists each state and reason, and no others.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	operate := read("../../docs/operate.md")
	reasons := regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "(\w+)"$`).FindAllStringSubmatch(read("../credential/reason.go"), -1)
	if len(reasons) == 0 || len(reasons) != len(remedies) {
		t.Errorf("%d reasons and %d remedies", len(reasons), len(remedies))
	}
	_, states, _ := strings.Cut(operate, "\n## States\n")
	states, _, _ = strings.Cut(states, "\n## ")
	documented, want := map[string]bool{}, map[string]bool{}
	for _, code := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(states, -1) {
		documented[code[1]] = true
	}
	for _, reason := range reasons {
		want[reason[1]] = true
		if Remedy(credential.Reason(reason[1])) == "" {
			t.Errorf("%s has no remedy", reason[1])
		}
	}
	for _, state := range sync.States {
		want[string(state)] = true
		if !strings.Contains(states, "\n- `"+string(state)+"`: ") {
			t.Errorf("operate.md lacks the state %s", state)
		}
	}
	if !maps.Equal(documented, want) {
		t.Errorf("operate.md names\n%v, and there are\n%v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(want)))
	}
}

// TestWarningsAndEventsAreDocumented: operate.md names each warning, and commands.md each event, or together with the event that it ends.
func TestWarningsAndEventsAreDocumented(t *testing.T) {
	t.Parallel()
	operate, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	commands, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../../sync/event/event.go")
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, _ := strings.Cut(string(operate), "\n## Warnings\n")
	_, events, _ := strings.Cut(string(commands), "\nEvents, and what to do:\n\n")
	kinds := regexp.MustCompile(`(?m)^\t\w+ +Kind = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 15 {
		t.Errorf("only %d events found", len(kinds))
	}
	for _, code := range WarningCodes {
		if list, _, _ := strings.Cut(warnings, "\n## "); !strings.Contains(list, "`"+string(code)+"`") {
			t.Errorf("operate.md lacks the warning %s", code)
		}
	}
	for _, kind := range kinds {
		if table, _, _ := strings.Cut(events, "\n\n"); !strings.Contains(table, "`"+kind[1]+"`") {
			t.Errorf("commands.md lacks the event %s", kind[1])
		}
	}
}
