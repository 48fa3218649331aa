package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"campaign-credsync/internal/config"
	"campaign-credsync/test/pages"
)

// manual has the program write its man pages and docs/configure.md to a directory.
func manual(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := exec.Command("go", "run", "-tags", "manual", "./cmd/campaign-credsync", dir)
	write.Dir, write.Env = "..", append(os.Environ(), "SOURCE_DATE_EPOCH=0")
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

var (
	called = regexp.MustCompile(`campaign-credsync(?: --config \S+)? ([a-z]+)((?: [^\x60|;&>#\n]*)?)`)
	flag   = regexp.MustCompile(`--[a-z][a-z-]*`)
	// notCommands follow the program's name in prose and in other programs' arguments.
	notCommands = map[string]bool{"activate": true, "packaging": true, "keeps": true, "campaign": true}
)

// docs/configure.md is what make docs makes, and each command that a document names, in a block or in a line, is one of the program's, with its flags.
func TestPagesAgreeWithTheManual(t *testing.T) {
	dir := manual(t)
	if read(t, "configure.md") != read(t, filepath.Join(dir, "configure.md")) {
		t.Error("configure.md is not what the configuration's table says: run make docs")
	}
	found := 0
	for _, file := range tracked(t, "*.md") {
		for _, m := range called.FindAllStringSubmatch(read(t, "../"+file), -1) {
			if notCommands[m[1]] {
				continue
			}
			found++
			page, err := os.ReadFile(filepath.Join(dir, "man1", "campaign-credsync-"+m[1]+".1"))
			if err != nil {
				t.Errorf("%s: %q: there is no command %s", file, m[0], m[1])
				continue
			}
			for _, name := range flag.FindAllString(m[2], -1) {
				if !strings.Contains(strings.ReplaceAll(string(page), `\-`, "-"), ".B "+name) {
					t.Errorf("%s: %q: there is no flag %s", file, m[0], name)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d commands were found", found)
	}
}

// Every YAML of the pages for operators is a configuration, once what it leaves out is added.
func TestConfigurationsOfPagesAreValid(t *testing.T) {
	env := func(name string) (string, bool) { return "/run/credentials", name == "CREDENTIALS_DIRECTORY" }
	found := 0
	for _, page := range append(pages.Operators, "container.md") {
		blocks, err := pages.Read(".", page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if b.Language != "yaml" {
				continue
			}
			for document := range strings.SplitSeq(b.Text, "---\n") {
				found++
				var c map[string]any
				if err := yaml.Unmarshal([]byte(document), &c); err != nil {
					t.Fatalf("%v: %v", b, err)
				}
				vault, _ := c["vault"].(map[string]any)
				if vault == nil {
					vault = map[string]any{"auth": map[string]any{"method": "token_file", "token_file": "/run/token"}}
				}
				vault["address"], c["vault"] = "https://vault.example.com", vault
				if c["instances"] == nil {
					c["instances"] = []any{map[string]any{"name": "prod", "path": "prod"}}
				}
				text, err := yaml.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "config.yaml")
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := config.Load(file, env); err != nil {
					t.Errorf("%v: %v", b, err)
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d configurations were found", found)
	}
}
