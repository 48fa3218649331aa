package sinks

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

const page = 4096

// smallDisk is an instance whose file is on a small disk of its own. State is elsewhere.
type smallDisk struct {
	*Instance
	t               *testing.T
	dir, file       string
	whole, drifted  string
	ballast, before string
}

func mount(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root to mount")
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// newSmallDisk makes a disk of 16 pages, with a file of 3.
func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	d := &smallDisk{t: t, dir: t.TempDir()}
	mount(t, "tmpfs", d.dir, "tmpfs", 0, "size=64k,mode=0755")
	d.file, d.ballast = filepath.Join(d.dir, "config-prod.xml"), filepath.Join(d.dir, "ballast")
	padding := "<!-- " + strings.Repeat("x", 2*page) + " -->"
	d.whole, d.drifted = swapRight+padding, swapDrifted+padding
	d.write(d.whole)
	state := t.TempDir()
	d.before = filepath.Join(state, "prod.before")
	d.Instance = New(Config{Name: "prod", File: d.file, StateDir: state})
	return d
}

func (d *smallDisk) write(content string) {
	d.t.Helper()
	if err := os.WriteFile(d.file, []byte(content), 0o640); err != nil {
		d.t.Fatal(err)
	}
}

// leave fills the disk up to so many pages.
func (d *smallDisk) leave(pages int) {
	d.t.Helper()
	f, err := os.Create(d.ballast)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for {
		if _, err = f.Write(bytes.Repeat([]byte{1}, page)); err != nil {
			break
		}
		size += page
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatal(err)
	}
	if err := f.Truncate(size - int64(pages)*page); err != nil {
		d.t.Fatal(err)
	}
}

// wantNothingOpen checks that neither a descriptor nor a lease is left on the disk.
func (d *smallDisk) wantNothingOpen() {
	d.t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range open {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, d.dir) {
			d.t.Errorf("left open: %s", target)
		}
	}
	fd, err := unix.Open(d.file, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		d.t.Errorf("whoever wants to write has to wait: %v", err)
		return
	}
	unix.Close(fd)
}

// A splice for which there is no room, or not enough, leaves everything as it is, and works as soon as there is.
func TestSpliceOnAFullDisk(t *testing.T) {
	for free := range 3 {
		t.Run(fmt.Sprint(free, " pages free"), func(t *testing.T) {
			d := newSmallDisk(t)
			d.write(d.drifted)
			d.leave(free)
			before := contents(t, d.dir)
			for range 3 {
				found, err := d.Restore(t.Context(), swapWanted)
				if !errors.Is(err, unix.ENOSPC) || len(credential.Drift(swapWanted, found)) == 0 {
					t.Errorf("found %v, error %v", found, err)
				}
				if errors.Is(err, credential.ErrCannotSplice) {
					t.Errorf("told as something that nlserver could mend: %v", err)
				}
			}
			if after := contents(t, d.dir); !maps.Equal(after, before) {
				t.Error("something was written")
			}
			d.wantNothingOpen()
			if err := os.Remove(d.ballast); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Restore(t.Context(), swapWanted); err != nil {
				t.Error(err)
			}
			d.wantAlone(d.whole)
		})
	}
}

func (d *smallDisk) wantAlone(content string) {
	d.t.Helper()
	d.Wait(d.t.Context())
	all := contents(d.t, d.dir)
	delete(all, filepath.Base(d.ballast))
	if len(all) != 1 || !strings.HasSuffix(all[filepath.Base(d.file)], " "+content) {
		d.t.Errorf("there are %d files, and %d bytes, want %d", len(all), len(all[filepath.Base(d.file)]), len(content))
	}
	d.wantNothingOpen()
}

// What a run cut off is put back in place where there is room for that and none for a copy, or where it cannot be
// replaced. Without room for all of it nothing is written, so that it gets no worse; it is tried again.
func TestPuttingBackOnAFullDisk(t *testing.T) {
	for _, x := range []struct {
		name    string
		free    int
		mounted bool
		works   bool
	}{
		{"no room", 0, false, false},
		{"room for a part", 1, false, false},
		{"room for the rest", 2, false, true},
		{"mount point, no room", 0, true, false},
		{"mount point, room for a part", 1, true, false},
		{"mount point, room for the rest", 2, true, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := newSmallDisk(t)
			if x.mounted {
				mount(t, d.file, d.file, "", unix.MS_BIND, "")
			}
			if err := os.WriteFile(d.before, []byte(d.whole), 0o600); err != nil {
				t.Fatal(err)
			}
			cut := d.whole[:100]
			d.write(cut)
			d.leave(x.free)
			inode := inodeOf(t, d.file)
			err := d.Recover(t.Context())
			if !x.works {
				if !errors.Is(err, unix.ENOSPC) {
					t.Errorf("error is %v", err)
				}
				d.wantAlone(cut)
				if _, err := os.Stat(d.before); err != nil {
					t.Errorf("what is to be put back is gone: %v", err)
				}
				if err := os.Remove(d.ballast); err != nil {
					t.Fatal(err)
				}
				err = d.Recover(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
			d.wantAlone(d.whole)
			if now := inodeOf(t, d.file); (x.mounted || x.works) && now != inode {
				t.Error("not put back in place")
			}
			if _, err := os.Stat(d.before); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was put back is still there: %v", err)
			}
		})
	}
}

// A disk that went read-only, as one does after an error, is told, and all is well when it is writable again.
func TestReadOnlyDisk(t *testing.T) {
	d := newSmallDisk(t)
	d.write(d.drifted)
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", d.dir, "tmpfs", unix.MS_REMOUNT|flags, "size=64k"); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	for range 2 {
		if found, err := d.Restore(t.Context(), swapWanted); !errors.Is(err, unix.EROFS) || found == nil {
			t.Errorf("found %v, error %v", found, err)
		}
		if err := d.Recover(t.Context()); err != nil {
			t.Errorf("nothing is to be recovered: %v", err)
		}
	}
	if seen, err := d.Look(t.Context()); err != nil || len(seen) == 0 {
		t.Errorf("looks like %v, %v", seen, err)
	}
	remount(0)
	d.wantAlone(d.drifted)
	if _, err := d.Restore(t.Context(), swapWanted); err != nil {
		t.Error(err)
	}
	d.wantAlone(d.whole)
}

// Nothing is renamed between the state directory and the file's: they may be on different file systems.
func TestStateOnAnotherFileSystem(t *testing.T) {
	c := newCampaign(t)
	mount(t, "tmpfs", c.state, "tmpfs", 0, "size=256k,mode=0700")
	var conf, state unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Dir(c.file), &conf), unix.Stat(c.state, &state)); err != nil || conf.Dev == state.Dev {
		t.Fatal("they are on the same file system", err)
	}
	applied, _, err := c.Apply(t.Context(), newTestCredential(firstSecret))
	if err != nil {
		t.Fatal(err)
	}
	whole := c.content()
	c.faults(`{"write_half": true, "die": true}`)
	if _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret)); err == nil || !strings.Contains(err.Error(), "was restored") {
		t.Errorf("error is %v", err)
	}
	if c.content() != whole {
		t.Error("not put back as it was")
	}
	drifted := c.with(credential.Attribute{Name: attrClientID, Value: "mallory"})
	if err := errors.Join(c.before.save([]byte(whole)), os.WriteFile(c.file, []byte(whole[:len(whole)/2]), 0o640), c.Recover(t.Context())); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(c.file, []byte(drifted), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(t.Context(), applied); err != nil || c.content() != whole {
		t.Errorf("not restored: %v", err)
	}
	c.wantClean()
}
