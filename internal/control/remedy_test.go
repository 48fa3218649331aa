package control

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
)

// TestReasonsAreDocumented: each reason has a remedy, and operate.md says the same of it, and has each state.
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
	for _, reason := range reasons {
		row := "\n- `" + reason[1] + "`: " + Remedy(credential.Reason(reason[1])) + "\n"
		if Remedy(credential.Reason(reason[1])) == "" || strings.Count(operate, row) != 1 {
			t.Errorf("operate.md lacks the row %s", row)
		}
	}
	_, states, _ := strings.Cut(operate, "\n## States\n")
	states, _, _ = strings.Cut(states, "\n## ")
	for _, state := range sync.States {
		if !strings.Contains(states, "\n- `"+string(state)+"`: ") {
			t.Errorf("operate.md lacks the state %s", state)
		}
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
