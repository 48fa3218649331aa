package main

import (
	"go/parser"
	"go/token"
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
