package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each break still finds its place in the source, is Go, names a test that is there, and has its row in docs/testing.md.
func TestMutationsFit(t *testing.T) {
	root := filepath.Join("..", "..")
	source, err := readSource(root)
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join(root, "docs", "testing.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
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
		row := "| " + m.breaks + " | `" + m.test + "` |\n"
		if rows[row] = true; !strings.Contains(string(document), row) {
			t.Errorf("docs/testing.md has no row %s", row)
		}
	}
	_, table, _ := strings.Cut(string(document), "| break | seen by |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if n := strings.Count(strings.TrimSpace(table), "\n") + 1; n != len(rows) {
		t.Errorf("docs/testing.md has %d rows for %d breaks", n, len(rows))
	}
}
