package sharedfile

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/filesystem"
	"campaign-credsync/test/logtest"
	"campaign-credsync/test/skip"
)

// right is what restore makes of drifted.
const (
	right   = `<conf client="right"><login name="neolane"/></conf>`
	drifted = `<conf client="mallory"><login name="neolane"/></conf>`
)

func restore(current []byte) ([]byte, error) {
	if err := wellFormed(current); err != nil {
		return nil, fmt.Errorf("%w: %w", credential.ErrDamaged, err)
	}
	return bytes.Replace(current, []byte(`"mallory"`), []byte(`"right"`), 1), nil
}

func wellFormed(content []byte) error { return xml.Unmarshal(content, new(struct{})) }

// newFile makes a file, and returns its path and what is logged about it.
func newFile(t *testing.T, dir, content string) (*File, string, *logtest.Buffer) {
	t.Helper()
	path, log := filepath.Join(dir, "config-prod.xml"), new(logtest.Buffer)
	write(t, path, content)
	f := New(path, wellFormed, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(f.guards.Wait)
	return f, path, log
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %.200q, %v, want %.200q", path, got, err, want)
	}
}

// wantAlone checks that nothing is left beside the file, and that neither a descriptor nor a lease is left there.
func wantAlone(t *testing.T, f *File, want string) {
	t.Helper()
	f.guards.Wait()
	wantContent(t, f.path, want)
	dir := filepath.Dir(f.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("left beside the file: %s", e.Name())
		}
	}
	wantNothingOpen(t, dir)
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EAGAIN) {
		t.Error("whoever wants to write has to wait")
	} else if err == nil {
		unix.Close(fd)
	}
}

func wantNothingOpen(t *testing.T, dir string) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, dir+"/") {
			t.Errorf("left open: %s", target)
		}
	}
}

func stat(t *testing.T, path string) (s unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &s); err != nil {
		t.Fatal(err)
	}
	s.Atim = unix.Timespec{}
	return s
}

func TestUpdateKeepsRights(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), drifted)
	err := errors.Join(os.Chmod(path, 0o624), unix.Setxattr(path, "user.note", []byte("kept"), 0)) // what a usual umask would take away
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(path, 12345, 23456))
	}
	before := stat(t, path)
	if err := errors.Join(err, f.Update(t.Context(), restore)); err != nil {
		t.Fatal(err)
	}
	if after := stat(t, path); after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid {
		t.Errorf("owner or mode changed: %o %d:%d, was %o %d:%d", after.Mode, after.Uid, after.Gid, before.Mode, before.Uid, before.Gid)
	}
	note := make([]byte, 16)
	if n, err := unix.Getxattr(path, "user.note", note); err != nil || string(note[:n]) != "kept" {
		t.Errorf("extended attribute: %q, %v", note[:max(n, 0)], err)
	}
	wantAlone(t, f, right)
}

func TestUpdateOfNothingWritesNothing(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), right)
	before := stat(t, path)
	if err := f.Update(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	if after := stat(t, path); after != before {
		t.Error("a file without drift was touched")
	}
}

// A link is followed within its directory only, also when it says so with the whole path.
func TestSymbolicLinks(t *testing.T) {
	for _, target := range []string{"real.xml", "/real.xml", "/../elsewhere.xml"} {
		t.Run(target, func(t *testing.T) {
			conf := filepath.Join(t.TempDir(), "conf")
			if err := os.Mkdir(conf, 0o755); err != nil {
				t.Fatal(err)
			}
			f, path, _ := newFile(t, conf, drifted)
			real := filepath.Join(filepath.Dir(path), target)
			link := real
			if !strings.HasPrefix(target, "/") {
				link = target
			}
			if err := errors.Join(os.Rename(path, real), os.Symlink(link, path)); err != nil {
				t.Fatal(err)
			}
			err, want := f.Update(t.Context(), restore), right
			if strings.Contains(target, "..") {
				want = drifted
				if err == nil || !strings.Contains(err.Error(), "is a symbolic link that leads out of its directory") {
					t.Errorf("error is %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if got, err := os.Readlink(path); err != nil || got != link {
				t.Errorf("link is %q, %v", got, err)
			}
			wantAlone(t, f, want)
		})
	}
}

// A writer that is not done holds up the update, and what it writes is not lost.
func TestUpdateWaitsForAWriter(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), drifted)
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	updated := make(chan error, 1)
	go func() { updated <- f.Update(t.Context(), restore) }()
	if _, err := writer.WriteAt([]byte(strings.Replace(drifted, "neolane", "NEOLANE", 1)), 0); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-updated:
		t.Fatalf("did not wait for the writer: %v", err)
	case <-time.After(50 * time.Millisecond): // long for an update, short for what a writer is given
	}
	writer.Close()
	if err := <-updated; err != nil {
		t.Fatal(err)
	}
	wantAlone(t, f, strings.Replace(right, "neolane", "NEOLANE", 1))
}

func TestUpdateGivesUpOnAWriterThatStays(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), drifted)
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Update(t.Context(), restore); !errors.Is(err, credential.ErrBusy) {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Update(ctx, restore); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	writer.Close()
	wantAlone(t, f, drifted)
}

// A file that is leased to somebody, such as a file server or the daemon itself while a command looks, is waited for.
func TestReadWaitsForALease(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), right)
	p, err := f.locate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.dir.Close()
	holder, err := p.openAt(p.name, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if err := holder.lease(unix.F_WRLCK); err != nil {
		t.Fatal(path, err)
	}
	looked := make(chan error, 1)
	go func() {
		_, _, err := f.Read(t.Context())
		looked <- err
	}()
	for began := time.Now(); !holder.leaseBroken(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("nobody asks for the lease")
		}
	}
	holder.Close() // it was open for writing
	if err := <-looked; err != nil {
		t.Error(err)
	}
}

// Somebody's lease that keeps a file from being written in place means that it is held by somebody.
func TestOverwriteMeetsALease(t *testing.T) {
	f, _, _ := newFile(t, t.TempDir(), drifted)
	p, err := f.locate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.dir.Close()
	holder, err := p.open(p.name)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if err := errors.Join(holder.lease(unix.F_RDLCK), p.overwrite(t.Context(), restore)); !errors.Is(err, credential.ErrBusy) {
		t.Errorf("error is %v", err)
	}
}

// A file that seems to be huge is refused, and does not take all memory.
func TestHugeFileIsRefused(t *testing.T) {
	f, path, _ := newFile(t, t.TempDir(), right)
	if err := os.Truncate(path, 1<<40); err != nil {
		skip.Unable(t, "the file system has no files that large: "+err.Error())
	}
	if _, _, err := f.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("error is %v", err)
	}
}

// A file that everybody may write, and a directory of somebody who has nothing to do with the file, or writable by its group, are told
// of, once, and worked with.
func TestOpenRightsAreToldOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root to give things away")
	}
	for want, open := range map[string]func(path string) error{
		"everybody may write this":                  func(p string) error { return os.Chmod(p, 0o646) },
		"this directory belongs to somebody else":   func(p string) error { return os.Chown(filepath.Dir(p), 12345, -1) },
		"the group of this directory may replace e": func(p string) error { return os.Chmod(filepath.Dir(p), 0o775) },
	} {
		t.Run(want, func(t *testing.T) {
			f, path, log := newFile(t, t.TempDir(), drifted)
			for times := range 3 {
				if times == 1 {
					if err := open(path); err != nil {
						t.Fatal(err)
					}
				}
				if err := f.Update(t.Context(), restore); err != nil || strings.Count(log.String(), want) != min(times, 1) {
					t.Errorf("time %d: %v\n%s", times, err, log)
				}
			}
		})
	}
}

// Editors of every kind work on the file while drift is put in and put back all the time; none of their updates may be lost.
// A file system in memory is so fast that there the races are between every two instructions. On a disk an editor would come
// between nearly always, so they pause, for longer where a replacement takes longer: about every second attempt is disturbed.
func TestNoUpdateOfOthersIsLost(t *testing.T) {
	const onDisks = 10 * time.Millisecond
	t.Run("tmpfs", func(t *testing.T) { noUpdateIsLost(t, onTmpfs(t), 0) })
	t.Run("disk", func(t *testing.T) { noUpdateIsLost(t, onDisk(t), onDisks) })
	for _, kind := range []string{"xfs", "btrfs", "overlay"} {
		t.Run(kind, func(t *testing.T) { noUpdateIsLost(t, filesystem.New(t, kind, nil), onDisks) })
	}
}

func noUpdateIsLost(t *testing.T, dir string, pause time.Duration) {
	const enough, least, longest = 100, 4 * time.Second, 4 * time.Minute // replacements; time: it takes some seconds
	styles := append(append([]editors.Style{}, editors.AllStyles...), editors.Rename, editors.InPlace)
	document := strings.Replace(right, "><", ">"+strings.Repeat("<!-- long enough for several writes -->\n", 150)+"<", 1)
	f, path, _ := newFile(t, dir, string(editors.Prepare([]byte(document), len(styles))))
	var pausing atomic.Int64
	pausing.Store(int64(pause))
	crowd := &editors.Crowd{Path: path, Styles: styles, Pause: func() time.Duration { return time.Duration(pausing.Load()) }, Meddle: func(d []byte) []byte {
		return bytes.Replace(d, []byte(`"right"`), []byte(`"mallory"`), 1)
	}}
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	replaced := 0
	var updates sync.WaitGroup
	updates.Go(func() {
		defer cancel()
		for began := time.Now(); ctx.Err() == nil && (replaced < enough || time.Since(began) < least); {
			attempts := 0
			err := f.Update(ctx, func(current []byte) ([]byte, error) {
				next, err := restore(current)
				if err == nil && !bytes.Equal(next, current) {
					attempts++
				}
				if attempts > 1 {
					pausing.Store(pausing.Load() * 11 / 10)
				}
				return next, err
			})
			switch {
			case err == nil && attempts > 0:
				replaced++
				pausing.Store(max(int64(pause), pausing.Load()*9/10))
			case err != nil && ctx.Err() == nil && !errors.Is(err, credential.ErrMissing) && !errors.Is(err, credential.ErrDamaged) && !errors.Is(err, credential.ErrBusy):
				t.Error(err)
			}
		}
	})
	result, err := crowd.Run(ctx)
	updates.Wait()
	f.guards.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Losses) != 0 {
		t.Errorf("%d of %d updates lost: %+v", len(result.Losses), result.Edits, result.Losses)
	}
	if replaced < enough {
		t.Errorf("only %d replacements and %d edits in %v: the test shows nothing", replaced, result.Edits, longest)
	}
	if err := f.Update(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	wantAlone(t, f, strings.Replace(string(result.Last), `"mallory"`, `"right"`, 1))
	t.Logf("%d edits, %d replacements, pauses of %v at the end", result.Edits, replaced, time.Duration(pausing.Load()))
}

// onTmpfs and onDisk make a directory there.
func onTmpfs(t *testing.T) string {
	t.Helper()
	if dir := dirOn(t, true, "/dev/shm", os.TempDir(), "/run"); dir != "" {
		return dir
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
	dir := dirOn(t, false, os.TempDir(), "/var/tmp", ".")
	if dir == "" {
		skip.Unable(t, "there is no disk to write to")
	}
	return dir
}

func dirOn(t *testing.T, tmpfs bool, parents ...string) string {
	t.Helper()
	for _, parent := range parents {
		var stat unix.Statfs_t
		if err := unix.Statfs(parent, &stat); err != nil || (stat.Type == unix.TMPFS_MAGIC) != tmpfs {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "credsync-shared-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return ""
}
