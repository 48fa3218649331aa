package doctor

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestChecksAreDocumented: the list that commands.md has of doctor names each check and each level once, and no others.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Doctor\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, list, _ := strings.Cut(section, "\n- ")
	var documented, want []string
	for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		documented = append(documented, name[1])
	}
	for _, check := range checks {
		want = append(want, check.name)
	}
	for _, level := range Levels {
		want = append(want, string(level))
	}
	slices.Sort(documented)
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		t.Errorf("commands.md names\n%v, and there are\n%v", documented, want)
	}
}
