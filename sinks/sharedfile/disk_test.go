package sharedfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

const page = 4096

var padding = "<!-- " + strings.Repeat("x", 2*page) + " -->"

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

// onSmallDisk makes a file on a disk of 16 pages.
func onSmallDisk(t *testing.T, content string) (*File, string) {
	t.Helper()
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "size=64k,mode=0755")
	f, path, _ := newFile(t, dir, content)
	return f, path
}

// leave fills the disk up to so many pages, and returns what has it full again.
func leave(t *testing.T, dir string, pages int) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	var size int64
	err := os.WriteFile(ballast, nil, 0o640)
	for err == nil {
		var f *os.File
		if f, err = os.OpenFile(ballast, os.O_WRONLY, 0); err == nil {
			_, err = f.WriteAt(make([]byte, page), size)
			f.Close()
		}
		size += page
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := os.Truncate(ballast, size-int64(pages+1)*page); err != nil {
		t.Fatal(err)
	}
	return ballast
}

// An update for which there is no room, or not enough, leaves everything as it is, and works as soon as there is.
func TestSpliceOnAFullDisk(t *testing.T) {
	for free := range 3 {
		t.Run(fmt.Sprint(free, " pages free"), func(t *testing.T) {
			f, path := onSmallDisk(t, drifted+padding)
			ballast := leave(t, filepath.Dir(path), free)
			before := stat(t, path)
			for range 3 {
				if err := f.Update(t.Context(), restore); !errors.Is(err, unix.ENOSPC) || errors.Is(err, credential.ErrCannotSplice) {
					t.Errorf("error is %v", err)
				}
			}
			if after := stat(t, path); after != before {
				t.Error("something was written")
			}
			wantAlone(t, f, drifted+padding)
			if err := errors.Join(os.Remove(ballast), f.Update(t.Context(), restore)); err != nil {
				t.Error(err)
			}
			wantAlone(t, f, right+padding)
		})
	}
}

// What a run cut off is put back in place where there is room for that and none for a copy, or where it cannot be
// replaced. Without room for all of it nothing is written, so that it gets no worse; it is tried again.
func TestPuttingBackOnAFullDisk(t *testing.T) {
	const cut = drifted + "<!-- cut off"
	whole := func([]byte) ([]byte, error) { return []byte(right + padding), nil }
	for _, mounted := range []bool{false, true} {
		for free := range 3 {
			t.Run(fmt.Sprintf("mount point %v, %d pages free", mounted, free), func(t *testing.T) {
				f, path := onSmallDisk(t, cut)
				if mounted {
					mount(t, path, path, "", unix.MS_BIND, "")
				}
				ballast := leave(t, filepath.Dir(path), free)
				before := stat(t, path)
				err := f.Repair(t.Context(), whole)
				if free < 2 { // the file has one page and needs three
					if !errors.Is(err, unix.ENOSPC) {
						t.Errorf("error is %v", err)
					}
					wantAlone(t, f, cut)
					err = errors.Join(os.Remove(ballast), f.Repair(t.Context(), whole))
				}
				if err != nil {
					t.Error(err)
				}
				wantAlone(t, f, right+padding)
				if now := stat(t, path); (mounted || free == 2) && now.Ino != before.Ino {
					t.Error("not put back in place")
				}
			})
		}
	}
}

// A disk that went read-only, as one does after an error, is told, and all is well when it is writable again.
func TestReadOnlyDisk(t *testing.T) {
	f, path := onSmallDisk(t, drifted)
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", filepath.Dir(path), "tmpfs", unix.MS_REMOUNT|flags, "size=64k"); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	for range 2 {
		if err := f.Update(t.Context(), restore); !errors.Is(err, unix.EROFS) || errors.Is(err, credential.ErrCannotSplice) {
			t.Errorf("error is %v", err)
		}
		if err := f.SettleStrays(t.Context()); err != nil {
			t.Errorf("nothing is to be settled: %v", err)
		}
	}
	if content, _, err := f.Read(t.Context()); err != nil || string(content) != drifted {
		t.Errorf("looks like %q, %v", content, err)
	}
	remount(0)
	if err := f.Update(t.Context(), restore); err != nil {
		t.Error(err)
	}
	wantAlone(t, f, right)
}
