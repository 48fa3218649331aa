package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutation is a break of the product, and the test that is there to see it. The text to be replaced is looked for in all of the
// product's source, so that it may move from file to file; it must be there exactly once.
type mutation struct {
	breaks   string // what it does, in words
	old, new string
	test     string // its name, with that of a subtest behind a slash
}

// source is the text of Go files by their path.
type source map[string]string

func readSource(root string) (source, error) {
	all := source{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path != root && (e.Name() == "bin" || strings.HasPrefix(e.Name(), ".")) {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".go" {
			text, err := os.ReadFile(path)
			all[path] = string(text)
			return err
		}
		return nil
	})
	return all, err
}

// mutate returns the file that a mutation concerns, and its broken text.
func (s source) mutate(m mutation) (file, broken string, err error) {
	var found []string
	for path, text := range s {
		part := strings.Split(filepath.ToSlash(path), "/")
		if slices.Contains(part, "test") || strings.HasSuffix(path, "_test.go") {
			continue // not the product
		}
		for range strings.Count(text, m.old) {
			found = append(found, path)
		}
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("%q is %d times in the product %v, want once", m.old, len(found), found)
	}
	return found[0], strings.Replace(s[found[0]], m.old, m.new, 1), nil
}

// packageOf returns the folder of a test.
func (s source) packageOf(test string) (string, error) {
	declaration := "\nfunc " + test + "("
	var found []string
	for path, text := range s {
		if strings.HasSuffix(path, "_test.go") && strings.Contains(text, declaration) {
			found = append(found, filepath.ToSlash(filepath.Dir(path)))
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("there are %d tests %s, want one: %v", len(found), test, found)
	}
	return found[0], nil
}
