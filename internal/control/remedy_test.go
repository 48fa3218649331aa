package control

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
)

// TestReasonsAreDocumented: each reason has a remedy, and operations.md says the same of it; README has each state.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	operations, readme := read("../../docs/operations.md"), read("../../README.md")
	reasons := regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "(\w+)"$`).FindAllStringSubmatch(read("../credential/reason.go"), -1)
	if len(reasons) == 0 || len(reasons) != len(remedies) {
		t.Errorf("%d reasons and %d remedies", len(reasons), len(remedies))
	}
	for _, reason := range reasons {
		row := "| `" + reason[1] + "` | " + Remedy(credential.Reason(reason[1])) + " |\n"
		if Remedy(credential.Reason(reason[1])) == "" || strings.Count(operations, row) != 1 {
			t.Errorf("operations.md lacks the row %s", row)
		}
	}
	for _, state := range sync.States {
		if !strings.Contains(readme, "\n| `"+string(state)+"` | ") {
			t.Errorf("README.md lacks the state %s", state)
		}
	}
}
