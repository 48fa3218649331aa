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
	logged   = regexp.MustCompile("(?:DEBUG|INFO|WARN|ERROR)\\s+`[^`]+`")
	// varies is what a message has in its place: a name, a number, an address.
	varies = regexp.MustCompile(`…|\d[\d,]*|\b[nN]\b`)
)

const root = "../.."

// The lists of docs/faults.md name every test of this package. Each fault has a test, and each test that is named is somewhere.
// The messages that it and the pages for operators quote stand in the product's source.
func TestTableOfFaults(t *testing.T) {
	t.Parallel()
	product, tests := sources(t)
	document := read(t, "faults.md")
	told := named.FindAllStringSubmatch(document, -1)
	for name, here := range tests {
		if here && !slices.ContainsFunc(told, func(m []string) bool { return m[1] == name }) {
			t.Errorf("docs/faults.md does not name %s", name)
		}
	}
	for _, m := range told {
		if _, ok := tests[m[1]]; !ok {
			t.Errorf("docs/faults.md names %s, which is nowhere", m[1])
		}
	}
	lines := regexp.MustCompile(`(?m)^- ([^:]+): (.+)$`).FindAllStringSubmatch(document, -1)
	if len(lines) < 60 {
		t.Errorf("only %d faults: the lists are not read", len(lines))
	}
	for _, line := range lines {
		if strings.HasPrefix(line[1], "**") { // a limit
			continue
		}
		if !named.MatchString(line[2]) {
			t.Errorf("faults.md: %s: no test", line[1])
		}
		messagesAreInTheProduct(t, product, line[1], named.ReplaceAllString(line[2], ""))
	}
	for _, name := range []string{"operate.md", "problems.md", "commands.md", "vault.md", "security.md", "hardening.md"} {
		for _, message := range logged.FindAllString(read(t, name), -1) {
			messagesAreInTheProduct(t, product, name, message)
		}
	}
	problems := read(t, "problems.md")
	for _, row := range rows(t, problems, "| you see | meaning | remedy |", 21) {
		messagesAreInTheProduct(t, product, "problems.md", row[0])
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	document, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

// rows returns the cells of all tables with this header, which must have that many rows.
func rows(t *testing.T, document, header string, atLeast int) (cells [][]string) {
	t.Helper()
	for _, table := range strings.Split(document, header+"\n")[1:] {
		table, _, _ = strings.Cut(table, "\n\n")
		for _, line := range strings.Split(strings.TrimSpace(table), "\n")[1:] {
			row := strings.Split(line, "|")
			cells = append(cells, row[1:len(row)-1])
		}
	}
	if len(cells) < atLeast {
		t.Errorf("only %d rows below %q: the tables are not read", len(cells), header)
	}
	return cells
}

func messagesAreInTheProduct(t *testing.T, product, where, cell string) {
	t.Helper()
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		if !says(product, m[1]) {
			t.Errorf("%s: nothing in the product says %q", where, m[1])
		}
	}
}

// sources returns what the product's source says, and of each test whether it is in this package.
func sources(t *testing.T) (product string, tests map[string]bool) {
	t.Helper()
	var text bytes.Buffer
	tests = map[string]bool{}
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
				name := string(m[1])
				tests[name] = tests[name] || folder == "test/faults" && name != "TestMain" && name != "TestTableOfFaults"
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

var errnos = []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EACCES, syscall.EPERM}
