package faults_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)
	named    = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	quoted   = regexp.MustCompile("`([^`]+)`")
	// listed is a list of tests, with the package that those of them are in that are not in this one.
	listed = regexp.MustCompile("((?:`(?:Test|Fuzz)\\w+`(?:, )?)+)(?: \\((?:package )?([a-z0-9/-]+)\\))?")
	// varies is what a message has in its place: a name, a number, an address.
	varies = regexp.MustCompile(`…|\d[\d,]*|\b[nN]\b`)
)

const root = "../.."

// The tables of docs/faults.md name every test of this package. Each row names a test that is where the row says, and what the
// operator is said to see stands in the product's source.
func TestTableOfFaults(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(filepath.Join(root, "docs", "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	product, tests := sources(t)
	told := named.FindAllStringSubmatch(string(document), -1)
	for name, packages := range tests {
		here := slices.Contains(packages, "test/faults") && name != "TestMain" && name != "TestTableOfFaults"
		if here && !slices.ContainsFunc(told, func(m []string) bool { return m[1] == name }) {
			t.Errorf("docs/faults.md does not name %s", name)
		}
	}
	for _, m := range told {
		if tests[m[1]] == nil {
			t.Errorf("docs/faults.md names %s, which is nowhere", m[1])
		}
	}
	rows := 0
	for line := range strings.Lines(string(document)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 4 || cells[0] == "| fault" {
			continue // no row of these tables
		}
		rows++
		fault, sees, by := strings.TrimPrefix(cells[0], "| "), cells[2], strings.TrimSuffix(cells[3], " |")
		for _, list := range listed.FindAllStringSubmatch(by, -1) {
			for _, m := range named.FindAllStringSubmatch(list[1], -1) {
				if !slices.Contains(tests[m[1]], "test/faults") && !slices.Contains(tests[m[1]], list[2]) {
					t.Errorf("%s: %s is not in %q but in %q", fault, m[1], list[2], tests[m[1]])
				}
			}
		}
		if !named.MatchString(by) {
			t.Errorf("%s: no test", fault)
		}
		for _, m := range quoted.FindAllStringSubmatch(sees, -1) {
			if !says(product, m[1]) {
				t.Errorf("%s: nothing in the product says %q", fault, m[1])
			}
		}
	}
	if rows < 50 {
		t.Errorf("only %d rows: the tables are not read", rows)
	}
}

// sources returns what the product's source says, and the packages of each test.
func sources(t *testing.T) (product string, tests map[string][]string) {
	t.Helper()
	var text bytes.Buffer
	tests = map[string][]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name := e.Name()
		if err != nil || e.IsDir() && (name == "bin" || strings.HasPrefix(name, ".") && path != root) {
			return errorOrSkip(err)
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(name, "_test.go"):
			for _, m := range declared.FindAllSubmatch(source, -1) {
				tests[string(m[1])] = append(tests[string(m[1])], folder)
			}
		case !strings.HasPrefix(folder+"/", "test/"):
			text.Write(source)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A message may be joined of parts, one to a line.
	return strings.NewReplacer(`" + "`, "", `"+ "`, "", `"+"`, "", `\"`, `"`).Replace(strings.Join(strings.Fields(text.String()), " ")), tests
}

func errorOrSkip(err error) error {
	if err != nil {
		return err
	}
	return fs.SkipDir
}

// says reports whether a message is in the source, or comes from the kernel. What varies in it may be anything short.
func says(source, message string) bool {
	if slices.ContainsFunc(errnos, func(e syscall.Errno) bool { return e.Error() == message }) {
		return true
	}
	parts := slices.DeleteFunc(varies.Split(message, -1), func(part string) bool { return strings.TrimSpace(part) == "" })
	return len(parts) > 0 && follows(source, parts)
}

// follows reports whether the parts stand in text, each soon after the one before.
func follows(text string, parts []string) bool {
	const soon = 60
	for {
		at := strings.Index(text, parts[0])
		if at < 0 {
			return false
		}
		text = text[at+len(parts[0]):]
		if len(parts) == 1 || follows(text[:min(len(text), soon+len(parts[1]))], parts[1:]) {
			return true
		}
	}
}

var errnos = []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EACCES}
