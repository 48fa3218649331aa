package main

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each break still finds its place in the source, compiles, and names a test that is there.
func TestMutationsFit(t *testing.T) {
	root := filepath.Join("..", "..")
	source, err := readSource(root)
	if err != nil {
		t.Fatal(err)
	}
	c := newCompiler(t, root)
	for _, m := range mutations {
		file, broken, err := source.mutate(m)
		if err == nil {
			err = c.compile(file, broken)
		}
		if err != nil {
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
	known := map[string]bool{"Break | Test": true}
	for _, m := range mutations {
		known[fmt.Sprintf("%s | `%s`", m.breaks, m.test)] = true
	}
	for line := range strings.Lines(string(text)) {
		if row := strings.TrimSpace(line); strings.Contains(row, " | ") && !known[row] {
			t.Errorf("docs/testing.md has a row that mutations.go has not: %s", row)
		}
	}
}

// compiler checks a package of the product, one file of which has another text.
type compiler struct {
	files    *token.FileSet
	imported types.Importer
}

func newCompiler(t *testing.T, root string) *compiler {
	t.Helper()
	list := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", "./cmd/...")
	list.Dir, list.Stderr = root, os.Stderr
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(text)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	files := token.NewFileSet()
	return &compiler{files, importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
}

func (c *compiler) compile(file, text string) error {
	dir, name := filepath.Split(file)
	p, err := build.ImportDir(dir, 0)
	if err != nil {
		return err
	}
	var parsed []*ast.File
	for _, f := range p.GoFiles {
		var source any // nil: that of the file
		if f == name {
			source = text
		}
		one, err := parser.ParseFile(c.files, filepath.Join(dir, f), source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed = append(parsed, one)
	}
	_, err = (&types.Config{Importer: c.imported}).Check(dir, c.files, parsed, nil)
	return err
}
