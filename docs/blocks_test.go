package docs_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/test/pages"
)

var typed = regexp.MustCompile(`(?m)^\s*(\$ |sudo |vault |campaign-credsync )`)

// Every block of the pages for operators says what it is, so that TestPages (make test-systemd) runs every command; and each command that is
// left out is there.
func TestBlocksSayWhatTheyAre(t *testing.T) {
	var commands []string
	for _, page := range pages.Operators {
		blocks, err := pages.Read(".", page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if !slices.Contains(pages.Languages, b.Language) {
				t.Errorf("%v: fence the block, and name its language, one of %s: %.60s", b, strings.Join(pages.Languages, ", "), b.Text)
			}
			if b.Language == "text" && typed.MatchString(b.Text) {
				t.Errorf("%v: has a command, and is not of the language sh", b)
			}
			for _, command := range b.Commands() {
				if b.Language == "sh" {
					commands = append(commands, page+" "+strings.TrimSpace(command))
				}
			}
		}
	}
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.Contains(pages.Operators, file) && !slices.Contains(pages.Developers, file) && pages.Elsewhere[file] == "" {
			t.Errorf("%s: say in test/pages whom it is for", file)
		}
	}
	for _, r := range pages.RunBy {
		if !slices.ContainsFunc(commands, func(c string) bool { return strings.HasPrefix(c, r.Page+" "+r.Begins) }) {
			t.Errorf("RunBy: %s has no command that begins with %q", r.Page, r.Begins)
		}
	}
}
