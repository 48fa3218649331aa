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

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	named   = regexp.MustCompile(`docs/[\w-]+\.md(?:#[\w-]+)?`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Every link of a document leads to a file and a heading that are there, and so does what code and packages say of docs/.
func TestLinksLeadSomewhere(t *testing.T) {
	documents, others := tracked(t, "*.md"), tracked(t, "*.go", "*.yml", "*.yaml", "*.json", "*.service", "*.conf", "packaging/scripts/*")
	found := 0
	for _, file := range documents {
		for _, m := range link.FindAllStringSubmatch(withoutCode(read(t, "../"+file)), -1) {
			if !strings.Contains(m[1], ":") {
				found++
				leads(t, file, filepath.Dir(file), m[1])
			}
		}
	}
	for _, file := range others {
		for _, target := range named.FindAllString(read(t, "../"+file), -1) {
			leads(t, file, ".", target)
		}
	}
	if found < 100 {
		t.Errorf("only %d links were found", found)
	}
}

func leads(t *testing.T, from, dir, target string) {
	t.Helper()
	path, anchor, has := strings.Cut(target, "#")
	file := filepath.Join("..", dir, path)
	if path == "" {
		file = filepath.Join("..", from)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("%s: there is no %s", from, target)
	} else if has && !slices.Contains(anchors(t, file), anchor) {
		t.Errorf("%s: %s has no such heading", from, target)
	}
}

// anchors are those that GitHub gives to the headings.
func anchors(t *testing.T, file string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(withoutCode(read(t, file)), -1) {
		all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

// withoutCode leaves fenced blocks out.
func withoutCode(text string) string {
	parts := strings.Split(text, "```")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = ""
	}
	return strings.Join(parts, "")
}

func tracked(t *testing.T, patterns ...string) []string {
	list := exec.Command("git", append([]string{"ls-files", "--cached", "--others", "--exclude-standard"}, patterns...)...)
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(file string) bool {
		_, err := os.Stat("../" + file)
		return err != nil
	})
}
