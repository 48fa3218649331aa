package sharedfile

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/filesystem"
	"campaign-credsync/test/logtest"
)

// What a replacement relies on is there on every file system that Campaign's hosts have: leases, the exchange, extended attributes, and
// a change time that a rename sets. In an overlay the file is at first one of the lower layer.
func TestFileSystems(t *testing.T) {
	for _, kind := range filesystem.Kinds {
		t.Run(kind, func(t *testing.T) {
			dir := filesystem.New(t, kind, map[string]string{"config-prod.xml": drifted})
			path := filepath.Join(dir, "config-prod.xml")
			log := new(logtest.Buffer)
			f := New(path, wellFormed, slog.New(slog.NewTextHandler(log, nil)))
			if err := f.Update(t.Context(), restore); err != nil {
				t.Fatal(err)
			}
			wantAlone(t, f, right)

			keepsRights(t, f)
			renameSetsChangeTime(t, f)
			meetsLeases(t, f)
			if log.String() != "" { // of leases or the exchange, that there are none
				t.Errorf("logged: %s", log)
			}
		})
	}
}

// keepsRights reverts a file that has an owner, a mode and attributes of its own.
func keepsRights(t *testing.T, f *File) {
	t.Helper()
	write(t, f.path, drifted)
	err := errors.Join(os.Chown(f.path, 12345, 23456), os.Chmod(f.path, 0o624), unix.Setxattr(f.path, "user.note", []byte("kept"), 0))
	before := stat(t, f.path)
	if err := errors.Join(err, f.Update(t.Context(), restore)); err != nil {
		t.Fatal(err)
	}
	if after := stat(t, f.path); after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid || after.Ino == before.Ino {
		t.Errorf("%o %d:%d, inode %d, was %o %d:%d, %d", after.Mode, after.Uid, after.Gid, after.Ino, before.Mode, before.Uid, before.Gid, before.Ino)
	}
	note := make([]byte, 16)
	if n, err := unix.Getxattr(f.path, "user.note", note); err != nil || string(note[:n]) != "kept" {
		t.Errorf("extended attribute: %q, %v", note[:max(n, 0)], err)
	}
	wantAlone(t, f, right)
}

// renameSetsChangeTime: an editor's copy, however old it is, is as young at the path as the rename.
func renameSetsChangeTime(t *testing.T, f *File) {
	t.Helper()
	beside, probe := filepath.Join(filepath.Dir(f.path), "editor"), filepath.Join(filepath.Dir(f.path), "probe")
	write(t, beside, drifted)
	made := changeTime(t, beside)
	for began := time.Now(); ; { // the clock of the file system has to go on
		write(t, probe, "")
		if changeTime(t, probe).After(made) {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("its clock stands still")
		}
		os.Remove(probe)
	}
	if err := os.Rename(beside, f.path); err != nil {
		t.Fatal(err)
	}
	if changed := f.ChangedAt(); changed.Before(changeTime(t, probe)) {
		t.Errorf("changed at %v, as the editor's copy was", changed)
	}
	os.Remove(probe)
}

func changeTime(t *testing.T, path string) time.Time {
	t.Helper()
	s := stat(t, path)
	return time.Unix(s.Ctim.Unix())
}

// meetsLeases: a writer keeps a lease from being taken, and who wants to write a leased file has to wait.
func meetsLeases(t *testing.T, f *File) {
	t.Helper()
	p, err := f.locate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.dir.Close()
	writer, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := p.open(p.name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := reader.lease(unix.F_RDLCK); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a lease beside a writer: %v", err)
	}
	writer.Close()
	if err := reader.lease(unix.F_RDLCK); err != nil {
		t.Errorf("no lease: %v", err)
	}
	if fd, err := unix.Open(f.path, unix.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.EAGAIN) {
		unix.Close(fd)
		t.Errorf("opened for writing beside a lease: %v", err)
	}
}
