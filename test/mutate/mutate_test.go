package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each break still finds its place in the source, is Go, and names a test that is there.
func TestMutationsFit(t *testing.T) {
	root := filepath.Join("..", "..")
	source, err := readSource(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		_, broken, err := source.mutate(m)
		if err != nil {
			t.Errorf("%s: %v", m.breaks, err)
		} else if _, err := parser.ParseFile(token.NewFileSet(), "broken.go", broken, parser.SkipObjectResolution); err != nil {
			t.Errorf("%s: %v", m.breaks, err)
		}
		name, _, _ := strings.Cut(m.test, "/")
		if _, err := source.packageOf(name); err != nil {
			t.Errorf("%s: %v", m.breaks, err)
		}
	}
}

// docs/testing.md tells how many there are, and shows some.
func TestMutationsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "testing.md"))
	if err != nil {
		t.Fatal(err)
	}
	if count := fmt.Sprintf("[%d places]", len(mutations)); !strings.Contains(string(text), count) {
		t.Errorf("docs/testing.md does not say %q", count)
	}
	known := map[string]bool{"Break | Test": true, "--- | ---": true}
	for _, m := range mutations {
		known[fmt.Sprintf("%s | `%s`", m.breaks, m.test)] = true
	}
	for line := range strings.Lines(string(text)) {
		if row := strings.TrimSpace(line); strings.Contains(row, " | ") && !known[row] {
			t.Errorf("docs/testing.md has a row that mutations.go has not: %s", row)
		}
	}
}
