package faults_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)
	named    = regexp.MustCompile("`((?:Test|Fuzz)\\w+)")
)

// The table in docs/faults.md names every test of this package, and no test that is not there.
func TestTableOfFaults(t *testing.T) {
	t.Parallel()
	const root = "../.."
	document, err := os.ReadFile(filepath.Join(root, "docs", "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, m := range named.FindAllSubmatch(document, -1) {
		told = append(told, string(m[1]))
	}
	var here, anywhere []string
	for _, folder := range []string{"cmd/*", "internal/*", "sinks", "sources", "sources/*", "sync", "test/*"} {
		files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range declared.FindAllSubmatch(source, -1) {
				anywhere = append(anywhere, string(m[1]))
				if filepath.Dir(file) == filepath.Join(root, "test", "faults") {
					here = append(here, string(m[1]))
				}
			}
		}
	}
	for _, name := range here {
		if !slices.Contains(told, name) && name != "TestMain" && name != "TestTableOfFaults" {
			t.Errorf("docs/faults.md does not name %s", name)
		}
	}
	for _, name := range told {
		if !slices.Contains(anywhere, name) {
			t.Errorf("docs/faults.md names %s, which is nowhere", name)
		}
	}
}
