package sinks_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/logtest"
	"campaign-credsync/test/skip"
)

const document = `<?xml version='1.0'?>
<!-- <ims authIMSTAClientId="in a comment"/> -->
<serverconf>
  <shared>
    <dataStore><dbcnx login="neolane" password="@ciphertext"/></dataStore>
    <ims authIMSClientId='people' authIMSTAClientId="right" authIMSTAClientSecret='@right' authIMSTAId="account"/>
  </shared>
</serverconf>
`

var right = credential.Attributes{
	{Name: "authIMSTAClientId", Value: "right"},
	{Name: "authIMSTAClientSecret", Value: "@right"},
	{Name: "authIMSTAId", Value: "account"},
	{Name: "authIMSTAPrivateKey", Absent: true},
}

func newInstance(t *testing.T, content string) (*sinks.Instance, string) {
	t.Helper()
	in, file, _ := newInstanceIn(t, t.TempDir(), content)
	return in, file
}

// newInstanceIn makes one whose file is in a certain directory, and returns what it logs.
func newInstanceIn(t *testing.T, dir, content string) (*sinks.Instance, string, *logtest.Buffer) {
	t.Helper()
	file, log := filepath.Join(dir, "config-prod.xml"), new(logtest.Buffer)
	if err := os.WriteFile(file, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	in := sinks.New(sinks.Config{Name: "prod", File: file, StateDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(log, nil))})
	t.Cleanup(func() { in.Wait(context.Background()) })
	return in, file, log
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func wantAlone(t *testing.T, in *sinks.Instance, file string) {
	t.Helper()
	in.Wait(context.Background())
	for _, path := range beside(t, file) {
		t.Errorf("stray file %s", path)
	}
}

// beside is what else there is in the file's directory.
func beside(t *testing.T, file string) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(file) {
			paths = append(paths, filepath.Join(filepath.Dir(file), e.Name()))
		}
	}
	return paths
}

var drifted = strings.NewReplacer(`"right"`, `"mallory"`, `'@right'`, `''`).Replace(document)

func TestRestorePutsBackAndKeepsTheRest(t *testing.T) {
	in, file := newInstance(t, drifted)
	if err := os.Chmod(file, 0o624); err != nil { // what a usual umask would take away
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "user.note", []byte("kept"), 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	before := stat(t, file)
	if _, err := in.Restore(t.Context(), right); err != nil {
		t.Fatal(err)
	}
	if got := read(t, file); got != document {
		t.Errorf("restored to:\n%s", got)
	}
	after := stat(t, file)
	if after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid {
		t.Errorf("owner or mode changed: %o %d:%d, was %o %d:%d", after.Mode, after.Uid, after.Gid, before.Mode, before.Uid, before.Gid)
	}
	note := make([]byte, 16)
	if n, err := unix.Getxattr(file, "user.note", note); err != nil || string(note[:n]) != "kept" {
		t.Errorf("extended attribute: %q, %v", note[:max(n, 0)], err)
	}
	wantAlone(t, in, file)
	seen, err := in.Look(t.Context())
	if err != nil || len(credential.Drift(right, seen)) != 0 {
		t.Errorf("looks like %v, %v", seen, err)
	}
}

func TestRestoreOfNothingWritesNothing(t *testing.T) {
	in, file := newInstance(t, document)
	before := stat(t, file)
	if _, err := in.Restore(t.Context(), right); err != nil {
		t.Fatal(err)
	}
	if after := stat(t, file); after != before {
		t.Error("a file without drift was touched")
	}
}

func TestRestoreRefusesWhatItMustNotTouch(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string
		want    error
	}{
		{"empty", "", credential.ErrDamaged},
		{"cut off", drifted[:len(drifted)-20], credential.ErrDamaged},
		{"no shared", `<serverconf/>`, credential.ErrCannotSplice},
		{"another document", `<other><shared><ims/></shared></other>`, credential.ErrCannotSplice},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, file := newInstance(t, c.content)
			if _, err := in.Restore(t.Context(), right); !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			if got := read(t, file); got != c.content {
				t.Errorf("changed to %q", got)
			}
			wantAlone(t, in, file)
		})
	}
	t.Run("missing", func(t *testing.T) {
		in, file := newInstance(t, document)
		os.Remove(file)
		if _, err := in.Restore(t.Context(), right); !errors.Is(err, credential.ErrMissing) {
			t.Errorf("error is %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("the file was created")
		}
	})
}

func TestSymbolicLinks(t *testing.T) {
	t.Run("within the directory is followed and kept", func(t *testing.T) {
		in, file := newInstance(t, drifted)
		target := filepath.Join(filepath.Dir(file), "real.xml")
		if err := errors.Join(os.Rename(file, target), os.Symlink("real.xml", file)); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Restore(t.Context(), right); err != nil {
			t.Fatal(err)
		}
		if link, err := os.Readlink(file); err != nil || link != "real.xml" {
			t.Errorf("link is %q, %v", link, err)
		}
		if got := read(t, target); got != document {
			t.Errorf("target is %q", got)
		}
	})
	t.Run("out of the directory is refused", func(t *testing.T) {
		in, file := newInstance(t, drifted)
		target := filepath.Join(t.TempDir(), "elsewhere.xml")
		if err := errors.Join(os.Rename(file, target), os.Symlink(target, file)); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Restore(t.Context(), right); err == nil || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("error is %v", err)
		}
		if got := read(t, target); got != drifted {
			t.Error("the target was changed")
		}
	})
}

// A writer that is not done holds up the revert, and what it writes is not lost.
func TestRestoreWaitsForAWriter(t *testing.T) {
	in, file := newInstance(t, drifted)
	writer, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	restored := make(chan error, 1)
	go func() {
		_, err := in.Restore(t.Context(), right)
		restored <- err
	}()
	edited := strings.Replace(drifted, "neolane", "NEOLANE", 1)
	if _, err := writer.WriteAt([]byte(edited), 0); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-restored:
		t.Fatalf("did not wait for the writer: %v", err)
	case <-time.After(50 * time.Millisecond): // long for a revert, short for the writer's patience
	}
	writer.Close()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, file), strings.Replace(document, "neolane", "NEOLANE", 1); got != want {
		t.Errorf("got %s", got)
	}
}

func TestRestoreGivesUpOnAWriterThatStays(t *testing.T) {
	in, file := newInstance(t, drifted)
	writer, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := in.Restore(t.Context(), right); !errors.Is(err, credential.ErrHeld) {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Restore(ctx, right); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	wantAlone(t, in, file)
}

// Editors of every kind work on the file while drift is put in and put back all the time; none of their updates may be lost.
// A file system in memory is so fast that there the races are between every two instructions; on a disk, an editor comes
// between nearly always, so they pause.
func TestNoUpdateOfOthersIsLost(t *testing.T) {
	for _, where := range []struct {
		name  string
		dir   string
		pause time.Duration
	}{
		{"tmpfs", onTmpfs(t), 0},
		{"disk", onDisk(t), 10 * time.Millisecond},
	} {
		t.Run(where.name, func(t *testing.T) { noUpdateIsLost(t, where.dir, where.pause) })
	}
}

func noUpdateIsLost(t *testing.T, dir string, pause time.Duration) {
	const enough, least, longest = 100, 4 * time.Second, 4 * time.Minute // replacements; time: it takes some seconds
	styles := append(append([]editors.Style{}, editors.AllStyles...), editors.Rename, editors.InPlace)
	in, file, _ := newInstanceIn(t, dir, string(editors.Prepare([]byte(document), len(styles))))
	crowd := &editors.Crowd{Path: file, Styles: styles, Pause: pause, Meddle: func(d []byte) []byte {
		return bytes.Replace(d, []byte(`"right"`), []byte(`"mallory"`), 1)
	}}
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	replaced := 0
	var restores sync.WaitGroup
	restores.Go(func() {
		defer cancel()
		for began := time.Now(); ctx.Err() == nil && (replaced < enough || time.Since(began) < least); {
			found, err := in.Restore(ctx, right)
			switch {
			case err == nil && len(credential.Drift(right, found)) > 0:
				replaced++
			case err != nil && ctx.Err() == nil && !errors.Is(err, credential.ErrMissing) && !errors.Is(err, credential.ErrDamaged) && !errors.Is(err, credential.ErrHeld):
				t.Error(err)
			}
		}
	})
	result, err := crowd.Run(ctx)
	restores.Wait()
	in.Wait(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Losses) != 0 {
		t.Errorf("%d of %d updates lost: %+v", len(result.Losses), result.Edits, result.Losses)
	}
	if replaced < enough {
		t.Errorf("only %d replacements and %d edits in %v: the test shows nothing", replaced, result.Edits, longest)
	}
	if _, err := in.Restore(t.Context(), right); err != nil {
		t.Fatal(err)
	}
	want := bytes.Replace(result.Last, []byte(`"mallory"`), []byte(`"right"`), 1)
	if got := read(t, file); got != string(want) {
		t.Errorf("at the end, got %s\nwant %s", got, want)
	}
	wantAlone(t, in, file)
	t.Logf("%d edits, %d replacements", result.Edits, replaced)
}

// onTmpfs and onDisk make a directory there.
func onTmpfs(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{"/dev/shm", os.TempDir(), "/run"} {
		if isTmpfs(parent) {
			if dir, err := os.MkdirTemp(parent, "credsync-exchange-"); err == nil {
				t.Cleanup(func() { os.RemoveAll(dir) })
				return dir
			}
		}
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		skip.Unable(t, "there is no tmpfs to write to: "+err.Error())
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func onDisk(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp", "."} {
		if !isTmpfs(parent) {
			if dir, err := os.MkdirTemp(parent, "credsync-exchange-"); err == nil {
				t.Cleanup(func() { os.RemoveAll(dir) })
				return dir
			}
		}
	}
	skip.Unable(t, "there is no disk to write to")
	return ""
}

func isTmpfs(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && stat.Type == unix.TMPFS_MAGIC
}

func stat(t *testing.T, file string) syscall.Stat_t {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(file, &s); err != nil {
		t.Fatal(err)
	}
	s.Atim = syscall.Timespec{}
	return s
}
