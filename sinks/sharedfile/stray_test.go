package sharedfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/skip"
)

// oldCopyName is the name that earlier releases gave a copy. A release has to know the names of those before it.
func oldCopyName(from, next string) string {
	return copyPrefix("config-prod.xml") + contentSum([]byte(from)) + "-" + contentSum([]byte(next))
}

// What a kill leaves beside the file tells by its name what it is.
func TestRecoverSettlesStrayCopies(t *testing.T) {
	const from, next, update, newest = `<conf a="1"/>`, `<conf a="2"/>`, `<conf a="1" others="update"/>`, `<conf a="3"/>`
	whole, draft := copyName("config-prod.xml", []byte(from), []byte(next)), draftName("config-prod.xml")
	for _, x := range []struct {
		name, stray, path, beside string
		want                      string
		stays                     bool
	}{
		{"killed before the exchange", whole, from, next, from, false},
		{"killed after the exchange", whole, next, from, next, false},
		{"killed while it was written", draft, from, next[:10], from, false},
		{"killed while an earlier release wrote it", copyPrefix("config-prod.xml") + unfinished, from, next[:10], from, false},
		{"an update was displaced by our copy", whole, next, update, update, false},
		{"an update was displaced by an earlier release", oldCopyName(from, next), next, update, update, false},
		{"an update was displaced by what was put back", whole, from, update, update, false},
		{"an update was displaced, and the path was written since", whole, newest, update, newest, true},
		{"an update was displaced, and the path was written since, alike", whole, update, update, update, false},
		{"what was displaced does not parse", whole, next, update[:10], next, true},
		{"an update was kept for a person", copyPrefix("config-prod.xml") + "update-x", next, update, next, true},
		{"an update was kept for a person, who put it in", copyPrefix("config-prod.xml") + "update-x", update, update, update, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			f, path, log := newFile(t, t.TempDir(), x.path)
			stray := filepath.Join(filepath.Dir(path), x.stray)
			write(t, stray, x.beside)
			if err := f.SettleStrays(t.Context()); err != nil {
				t.Error(err)
			}
			if x.stays {
				wantContent(t, stray, x.beside)
				if !strings.Contains(log.String(), "a stray copy is left alone") || os.Remove(stray) != nil {
					t.Errorf("told:\n%s", log)
				}
			}
			wantAlone(t, f, x.want)
		})
	}
}

// A stray stays as long as there is no file.
func TestStrayOfAMissingFileIsSettledLater(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), right)
	write(t, filepath.Join(filepath.Dir(path), oldCopyName(drifted, right)), strings.Replace(drifted, "neolane", "NEOLANE", 1))
	away := filepath.Join(t.TempDir(), "away")
	if err := errors.Join(os.Rename(path, away), f.SettleStrays(t.Context()), os.Rename(away, path), f.Update(t.Context(), restore)); err != nil {
		t.Fatal(err)
	}
	wantAlone(t, f, strings.Replace(right, "neolane", "NEOLANE", 1))
}

// An update is not put back to a file with a second name, which would part the names. That takes a person, and holds up nothing else.
func TestStrayBesideAFileWithTwoNames(t *testing.T) {
	f, path, log := newFile(t, t.TempDir(), right)
	stray, update := filepath.Join(filepath.Dir(path), oldCopyName(drifted, right)), strings.Replace(drifted, "neolane", "NEOLANE", 1)
	write(t, stray, update)
	if err := errors.Join(os.Link(path, path+".other"), f.SettleStrays(t.Context())); err != nil {
		t.Fatal(err)
	}
	wantContent(t, stray, update)
	wantContent(t, path, right)
	if !strings.Contains(log.String(), "left alone") || !strings.Contains(log.String(), "2 names (hard links)") {
		t.Errorf("told:\n%s", log)
	}
}

// A stray that cannot come from us is neither put in place nor removed, however well it is named, and does not keep the
// instance from being looked after. It is told of, once.
func TestPlantedStraysAreLeftAlone(t *testing.T) {
	const update = `<conf planted="1"/>`
	displaced, draft := oldCopyName("a", right), draftName("config-prod.xml")
	plant := func(content string, mode os.FileMode) func(*testing.T, string) error {
		return func(_ *testing.T, path string) error { return os.WriteFile(path, []byte(content), mode) }
	}
	for _, x := range []struct {
		name, stray, want string
		plant             func(t *testing.T, path string) error
	}{
		{"symbolic link", displaced, "symbolic links", func(t *testing.T, path string) error {
			target := filepath.Join(t.TempDir(), "target")
			write(t, target, update)
			return os.Symlink(target, path)
		}},
		{"directory", displaced, "not a regular file", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }},
		{"FIFO", displaced, "not a regular file", func(_ *testing.T, path string) error { return unix.Mkfifo(path, 0o640) }},
		{"directory as a draft", draft, "not a regular file", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }},
		{"hard link", displaced, "2 names", func(t *testing.T, path string) error {
			write(t, path, update)
			return os.Link(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "other"))
		}},
		{"somebody else's", displaced, "user 12345", func(t *testing.T, path string) error {
			write(t, path, update)
			return os.Chown(path, 12345, -1)
		}},
		{"root's, which the daemon may not read", displaced, "permission denied", plant(update, 0o600)},
		{"root's, which the daemon may not remove", draft, "permission denied", plant(update, 0o644)},
		{"20 MiB", displaced, "larger than", plant(string(bytes.Repeat([]byte(update), 20<<20/len(update))), 0o640)},
		{"another name", copyPrefix("config-prod.xml") + "backup", "somebody's update", plant(update, 0o640)},
		{"not well-formed", displaced, "not well-formed", plant("<a", 0o640)},
	} {
		t.Run(x.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				skip.Unable(t, "needs root to give files away")
			}
			f, path, log := newFile(t, t.TempDir(), right)
			stray := filepath.Join(filepath.Dir(path), x.stray)
			if err := errors.Join(x.plant(t, stray), os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755)); err != nil {
				t.Fatal(err)
			}
			before := stat(t, stray)
			for range 2 {
				err := os.Chown(path, nobody, nobody)
				settle := func() { err = errors.Join(err, f.SettleStrays(t.Context())) }
				if strings.HasPrefix(x.name, "root's") {
					asNobody(settle)
				} else {
					settle()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if after := stat(t, stray); after != before {
				t.Errorf("%+v became %+v", before, after)
			}
			wantContent(t, path, right)
			if got := log.String(); strings.Count(got, "left alone") != 1 || strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, x.want) {
				t.Errorf("told:\n%s", got)
			}
		})
	}
}
