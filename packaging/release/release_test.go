// Package release_test makes releases of the code that is here, in repositories of their own, with a key that is thrown away.
package release_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/pages"
	"campaign-credsync/test/skip"
)

const (
	version = "v9.9.9"
	section = "## [9.9.9] - 2026-01-01\n\nRead the limits first.\n\n### Added\n\n- What the section says.\n"
)

// repository is a clone of the code that is here, also of what is not committed, with one commit and the tag.
type repository struct {
	dir, dist string
	env       []string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	for _, program := range []string{"git", "gpg", "jq", "make"} {
		if _, err := exec.LookPath(program); err != nil {
			skip.Unable(t, "there is no "+program)
		}
	}
	dir := t.TempDir()
	r := &repository{dir: dir, dist: filepath.Join(dir, "dist"), env: append(withoutMake(os.Environ()),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@example.com", "GIT_AUTHOR_DATE=2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z")}
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = filepath.Join("..", "..")
	names, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(names), "\x00"), "\x00") {
		from := filepath.Join(list.Dir, name)
		about, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and that is not committed
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if name == "CHANGELOG.md" {
			text = bytes.Replace(text, []byte("## [Unreleased]\n"), []byte("## [Unreleased]\n\n"+section+"\n## [9.9.8] - 2025-01-01\n"), 1)
		}
		r.write(t, name, text, about.Mode().Perm())
	}
	r.must(t, "git", "init", "--quiet")
	r.must(t, "git", "add", ".")
	r.must(t, "git", "commit", "--quiet", "-m", "all")
	r.must(t, "git", "tag", "-a", version, "-m", version)
	return r
}

// withoutMake leaves out what a make that runs this test was told, such as to sign with a real key.
func withoutMake(env []string) []string {
	return slices.DeleteFunc(env, func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		return strings.HasPrefix(name, "MAKE") || slices.Contains([]string{"MFLAGS", "VERSION", "PACKAGE_VERSION", "DIST", "ARCHES", "ARCH", "MAINTAINER",
			"EPOCH", "SIGN_KEY", "UNSIGNED", "SKIP_TESTS", "FORMATS", "BINARY"}, name)
	})
}

func (r *repository) write(t *testing.T, name string, text []byte, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
}

// try runs a program there and returns all that it says.
func (r *repository) try(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir, c.Env = r.dir, r.env
	said, err := c.CombinedOutput()
	return string(said), err
}

func (r *repository) must(t *testing.T, program string, args ...string) string {
	t.Helper()
	said, err := r.try(t, program, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, said)
	}
	return said
}

// release runs "make release" for this machine's architecture, without tests.
func (r *repository) release(t *testing.T, settings ...string) (string, error) {
	t.Helper()
	return r.try(t, "make", append([]string{"--no-print-directory", "release", "VERSION=" + version, "ARCHES=" + runtime.GOARCH, "SKIP_TESTS=1"}, settings...)...)
}

// newKey makes a key and a directory of gpg with it. Its path is short, as gpg makes sockets in it.
func newKey(t *testing.T) (home, id string) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	r := &repository{dir: home, env: append(os.Environ(), "GNUPGHOME="+home)}
	t.Cleanup(func() {
		stop := exec.Command("gpgconf", "--kill", "all")
		stop.Env = r.env
		if said, err := stop.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, said)
		}
		_ = os.RemoveAll(home)
	})
	id = "releaser@example.com"
	r.must(t, "gpg", "--batch", "--passphrase", "", "--quick-generate-key", id, "ed25519", "sign")
	return home, id
}

func TestRefusals(t *testing.T) {
	r := newRepository(t)
	r.env = append(r.env, "GNUPGHOME="+t.TempDir())
	for _, test := range []struct {
		name     string
		with     func(t *testing.T)
		settings []string
		says     []string
	}{
		{"no version", nil, []string{"VERSION=next"}, []string{"no version", "make release VERSION=v0.1.0"}},
		{"no tag", nil, []string{"VERSION=v9.9.10"}, []string{"no tag v9.9.10", "git tag -a v9.9.10"}},
		{"a branch of that name", func(t *testing.T) { r.must(t, "git", "branch", "v9.9.11") }, []string{"VERSION=v9.9.11"}, []string{"no tag v9.9.11"}},
		{"no key", nil, nil, []string{"no key", "SIGN_KEY="}},
		{"an unknown key", nil, []string{"SIGN_KEY=nobody@example.com"}, []string{"no secret key nobody@example.com", "gpg --list-secret-keys"}},
		{"unsigned is not 1", nil, []string{"UNSIGNED=no"}, []string{"no key"}},
		{"a test that fails", nil, []string{"UNSIGNED=1", "SKIP_TESTS=", "MAKE=" + failingTests(t)}, []string{"the tests fail"}},
		{"a new file", func(t *testing.T) { r.write(t, "sync/new.go", []byte("package sync\n"), 0o644) }, nil, []string{"sync/new.go", "commit or remove"}},
		{"a changed file", func(t *testing.T) {
			r.must(t, "rm", "sync/new.go")
			r.must(t, "sh", "-c", "echo >>README.md")
		}, nil, []string{"README.md", "commit or remove"}},
		{"a later commit", func(t *testing.T) { r.must(t, "git", "commit", "--quiet", "-am", "later") }, nil, []string{"HEAD is", "git checkout " + version}},
		{"no section", func(t *testing.T) { r.must(t, "git", "tag", "-a", "v9.9.12", "-m", "m") }, []string{"VERSION=v9.9.12"}, []string{"no section ## [9.9.12]", "move the tag"}},
		{"an empty section", func(t *testing.T) {
			r.must(t, "sed", "-i", "s/^## .Unreleased./## [9.9.13]\\n\\n&/", "CHANGELOG.md")
			r.must(t, "git", "commit", "--quiet", "-am", "section")
			r.must(t, "git", "tag", "-a", "v9.9.13", "-m", "m")
		}, []string{"VERSION=v9.9.13"}, []string{"no section ## [9.9.13]"}},
	} {
		if test.with != nil {
			test.with(t)
		}
		said, err := r.release(t, test.settings...)
		if err == nil {
			t.Fatalf("%s: not refused: %s", test.name, said)
		}
		for _, words := range test.says {
			if !strings.Contains(said, words) {
				t.Errorf("%s: want %q in: %s", test.name, words, said)
			}
		}
		for _, dir := range []string{"bin", "dist"} {
			if _, err := os.Stat(filepath.Join(r.dir, dir)); err == nil {
				t.Fatalf("%s: something was built: %s", test.name, said)
			}
		}
	}
}

// failingTests is a make in which the tests fail.
func failingTests(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "make")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n[ \"$*\" = 'lint test' ] || exec mkdir dist\necho 'the tests fail'; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Two releases of one tag, in two folders at two times, by users with other rights, zones and settings, are the same but for the
// signature. The second one goes to a folder with a space in its name, and what is beside that stays.
func TestReleaseIsReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages twice")
	}
	home, key := newKey(t)
	var before map[string][]byte
	for _, user := range []struct {
		umask string
		env   []string
	}{
		{"022", []string{"TZ=UTC", "GOAMD64=v1"}},
		{"077", []string{"TZ=Asia/Tokyo", "GOAMD64=v3", "GOARM64=v8.2", "LC_ALL=C.UTF-8", "TAR_OPTIONS=--format=pax", "GZIP=-1", "SOURCE_DATE_EPOCH=1"}},
	} {
		r := newRepository(t)
		r.env = append(append(r.env, "GNUPGHOME="+home), user.env...)
		if before != nil {
			year := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
			for _, name := range []string{"README.md", "packaging/systemd/config.example.yaml", "packaging/scripts/postinstall"} {
				if err := os.Chtimes(filepath.Join(r.dir, name), year, year); err != nil {
					t.Fatal(err)
				}
			}
		}
		beside := filepath.Join(t.TempDir(), "my")
		if before != nil {
			r.dist = beside + " packages"
			if err := os.WriteFile(beside, []byte("a file of somebody's"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		said, err := r.try(t, "sh", "-c", "umask "+user.umask+`; exec make release "$@"`, "sh", "VERSION="+version, "ARCHES="+runtime.GOARCH,
			"DIST="+r.dist, "SKIP_TESTS=1", "SIGN_KEY="+key, "MAINTAINER=O'Neil & <o@example.com>")
		if err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		if !strings.Contains(said, "THE TESTS ARE SKIPPED") {
			t.Error("that tests were skipped is not said")
		}
		files := map[string][]byte{}
		entries, err := os.ReadDir(r.dist)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(r.dist, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			files[e.Name()] = text
		}
		if before == nil {
			before = files
			testContents(t, r, files)
			continue
		}
		if _, err := os.Stat(beside); err != nil {
			t.Error(err)
		}
		if len(files) != len(before) {
			t.Errorf("%d files, and before %d", len(files), len(before))
		}
		for name, text := range files {
			if name != "SHA256SUMS.asc" && !bytes.Equal(text, before[name]) {
				t.Errorf("%s differs: %d bytes, and before %d", name, len(text), len(before[name]))
			}
		}
	}
}

// testDocumented runs the commands of the documents that need a checkout or a release: each in the directory where its reader is.
func testDocumented(t *testing.T, r *repository) {
	commands, err := pages.CommandsRunBy("../../docs", t.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(commands) != 2 {
		t.Fatalf("the documents have %q", commands)
	}
	for _, command := range commands {
		dir := r.dist
		if strings.HasPrefix(command, "make ") {
			dir = r.dir
		}
		r.must(t, "bash", "-ec", `cd "$1"; eval "$2"`, "bash", dir, command)
	}
	if said := r.must(t, "bin/campaign-credsync", "version"); !strings.Contains(said, version) {
		t.Errorf("what was built says %s", said)
	}
}

func testContents(t *testing.T, r *repository, files map[string][]byte) {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, form := range []string{".deb", ".rpm", ".tar.gz", ".oci.tar", ".cdx.json"} {
		if !slices.ContainsFunc(names, func(name string) bool {
			return strings.HasSuffix(name, form) && strings.Contains(name, strings.TrimPrefix(version, "v"))
		}) {
			t.Errorf("no %s of this version among %v", form, names)
		}
	}

	testDocumented(t, r)
	verify := func() (string, error) {
		return r.try(t, "sh", "-c", "cd dist && gpg --batch --verify SHA256SUMS.asc SHA256SUMS && sha256sum --check --strict --quiet SHA256SUMS")
	}
	if said, err := verify(); err != nil {
		t.Errorf("the sums do not hold: %s", said)
	}
	for name := range files {
		if !strings.HasPrefix(name, "SHA256SUMS") && !strings.Contains(string(files["SHA256SUMS"]), "  "+name+"\n") {
			t.Errorf("the sums leave out %s", name)
		}
	}
	for _, name := range []string{"release-notes.md", "SHA256SUMS"} {
		r.write(t, "dist/"+name, append([]byte("x"), files[name]...), 0o644)
		if said, err := verify(); err == nil {
			t.Errorf("%s was changed, and that is not seen: %s", name, said)
		}
		r.write(t, "dist/"+name, files[name], 0o644)
	}

	_, want, _ := strings.Cut(section, "\n\n")
	if got := string(files["release-notes.md"]); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("the notes are %q, want %q", got, want)
	}

	var provenance struct {
		Type    string `json:"_type"`
		Subject []struct {
			Name   string
			Digest struct{ SHA256 string }
		}
		Predicate struct {
			BuildDefinition struct {
				ExternalParameters struct{ Tag, Maintainer string }
				InternalParameters struct{ Go, Tests string }
				Resolved           []struct {
					Digest struct{ GitCommit string }
				} `json:"resolvedDependencies"`
			}
		}
	}
	if err := json.Unmarshal(files["provenance.json"], &provenance); err != nil {
		t.Fatal(err)
	}
	build := provenance.Predicate.BuildDefinition
	if commit := strings.TrimSpace(r.must(t, "git", "rev-parse", "HEAD")); build.ExternalParameters.Tag != version || build.ExternalParameters.Maintainer != "O'Neil & <o@example.com>" ||
		build.InternalParameters.Go != runtime.Version() || build.InternalParameters.Tests != "skipped" || build.Resolved[0].Digest.GitCommit != commit {
		t.Errorf("the provenance says %+v, the commit is %s", build, commit)
	}
	if len(provenance.Subject) != len(files)-3 { // all but itself, the sums and their signature
		t.Errorf("the provenance is of %d files among %v", len(provenance.Subject), names)
	}
	for _, s := range provenance.Subject {
		if s.Digest.SHA256 == "" || !strings.Contains(string(files["SHA256SUMS"]), s.Digest.SHA256+"  "+s.Name+"\n") {
			t.Errorf("the provenance has another digest of %s than the sums", s.Name)
		}
	}

	testBillOfMaterials(t, r, files["campaign-credsync_9.9.9_linux_"+runtime.GOARCH+".cdx.json"])
}

// testBillOfMaterials compares it with what go says of the binary.
func testBillOfMaterials(t *testing.T, r *repository, text []byte) {
	var bill struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		t.Fatal(err)
	}
	if bill.BOMFormat != "CycloneDX" || bill.Metadata.Component.Name != "campaign-credsync" || bill.Metadata.Component.Version != version {
		t.Errorf("the bill of materials is of %+v", bill.Metadata)
	}
	listed := map[string]string{}
	for _, c := range bill.Components {
		listed[c.Name] = c.Version
	}
	linked := r.must(t, "go", "version", "-m", "bin/campaign-credsync-"+runtime.GOARCH)
	for _, setting := range []string{"vcs.modified=false", "-trimpath=true", "CGO_ENABLED=0"} {
		if !strings.Contains(linked, setting) {
			t.Errorf("the binary was not built with %s: %s", setting, linked)
		}
	}
	modules := 0
	for line := range strings.Lines(linked) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			if modules++; listed[f[1]] != f[2] {
				t.Errorf("the binary has %s %s, the bill of materials %q", f[1], f[2], listed[f[1]])
			}
		}
	}
	if modules < 10 || listed["std"] == "" {
		t.Errorf("the bill of materials lists %v", listed)
	}
}
