// Package docs_test holds documents to what is there.
package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notDrawn are below all others.
var notDrawn = []string{"internal/credential", "internal/durable", "internal/regularfile", "internal/deadline", "internal/jitter", "internal/lazyregexp", "internal/signals", "internal/trouble"}

// Every arrow of the drawing is an import, and every import is an arrow or a way over several.
func TestDrawingShowsTheImports(t *testing.T) {
	drawn, imports := drawing(t), imports(t)
	for from, to := range drawn {
		if _, is := imports[from]; !is {
			t.Errorf("there is no package %s", from)
		}
		for _, other := range to {
			if !slices.Contains(imports[from], other) {
				t.Errorf("%s does not import %s", from, other)
			}
		}
	}
	for from, to := range imports {
		reached := reach(drawn, from, map[string]bool{})
		for _, other := range to {
			if !reached[other] {
				t.Errorf("no way shows that %s imports %s", from, other)
			}
		}
	}
}

func reach(arrows map[string][]string, from string, seen map[string]bool) map[string]bool {
	for _, to := range arrows[from] {
		if !seen[to] {
			seen[to] = true
			reach(arrows, to, seen)
		}
	}
	return seen
}

// drawing reads the arrows: lines of the form: name["package"] --> name & name.
func drawing(t *testing.T) map[string][]string {
	_, rest, _ := strings.Cut(read(t, "architecture.md"), "graph TD\n")
	text, _, closed := strings.Cut(rest, "```")
	if !closed {
		t.Fatal("there is no drawing")
	}
	line := regexp.MustCompile(`^  (\w+)(?:\["(.+)"\])?(?: --> (.+))?$`)
	packages, names := map[string]string{}, map[string][]string{}
	for one := range strings.Lines(text) {
		m := line.FindStringSubmatch(strings.TrimRight(one, "\n"))
		if m == nil {
			t.Fatalf("not of the form that this test reads: %q", one)
		}
		if packages[m[1]] = m[2]; m[2] == "" {
			packages[m[1]] = m[1]
		}
		if m[3] != "" {
			names[m[1]] = strings.Split(m[3], " & ")
		}
	}
	arrows := map[string][]string{}
	for name, path := range packages {
		arrows[path] = nil
		for _, to := range names[name] {
			if packages[to] == "" {
				t.Errorf("%s has no line of its own", to)
			}
			arrows[path] = append(arrows[path], packages[to])
		}
	}
	return arrows
}

// imports asks go list.
func imports(t *testing.T) map[string][]string {
	list := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./cmd/...", "./internal/...", "./sync/...", "./sinks/...", "./sources/...")
	list.Dir, list.Stderr = "..", os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for one := range strings.Lines(string(out)) {
		var ours []string
		for _, path := range strings.Fields(one) {
			if short, is := strings.CutPrefix(path, "campaign-credsync/"); is {
				ours = append(ours, short)
			}
		}
		if from := ours[0]; !slices.Contains(notDrawn, from) {
			all[from] = slices.DeleteFunc(ours[1:], func(to string) bool { return slices.Contains(notDrawn, to) })
		}
	}
	return all
}

// Every test and fuzz target that a command in a document names is there, in that package.
func TestNamedTargetsAreThere(t *testing.T) {
	command := regexp.MustCompile(`go test [^\n#` + "`" + `]*`)
	target, place := regexp.MustCompile(`-(?:run|fuzz) (\w+)`), regexp.MustCompile(`(\./\S+)`)
	found := 0
	for _, name := range []string{"testing.md", "../CONTRIBUTING.md"} {
		for _, c := range command.FindAllString(read(t, name), -1) {
			dir := place.FindString(c)
			for _, m := range target.FindAllStringSubmatch(c, -1) {
				found++
				files, _ := filepath.Glob(filepath.Join("..", strings.TrimSuffix(dir, "/..."), "*_test.go"))
				if !slices.ContainsFunc(files, func(file string) bool { return strings.Contains(read(t, file), "func "+m[1]) }) {
					t.Errorf("%s: %s: there is no %s", name, c, m[1])
				}
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d targets were found in the documents", found)
	}
}

// README is the first screen: what it has not met is said before anything else, and it stays short.
func TestReadmeIsAFirstScreen(t *testing.T) {
	const most = 900
	text := read(t, "../README.md")
	if third := strings.Split(text, "\n")[2]; !strings.Contains(third, "only a stand-in of `nlserver`") {
		t.Errorf("line 3 does not say that only a stand-in of nlserver was met: %s", third)
	}
	if n := len(strings.Fields(text)); n > most {
		t.Errorf("README has %d words, at most %d; move what has no place to docs/", n, most)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
