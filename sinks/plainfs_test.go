package sinks_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
	"campaign-credsync/test/policy"
	"campaign-credsync/test/skip"
)

// On a file system that has neither the exchange nor leases nor files without a name, as NFS, drift is put back all the same,
// and what is lacking is said once.
func TestRestoreOnAFileSystemWithoutExtras(t *testing.T) {
	if !policy.Alone(t) {
		return
	}
	in, file, log := newInstanceIn(t, t.TempDir(), drifted)
	policy.Forbid(t, policy.Exchange.Says(unix.EINVAL), policy.Tmpfile.Says(unix.EOPNOTSUPP), policy.Lease.Says(unix.EINVAL))
	for range 2 {
		if err := errors.Join(os.WriteFile(file, []byte(drifted), 0o640), os.Chmod(file, 0o604)); err != nil {
			t.Fatal(err)
		}
		found, err := in.Restore(t.Context(), right)
		if err != nil || len(credential.Drift(right, found)) == 0 {
			t.Fatal(found, err)
		}
		if got := read(t, file); got != document || stat(t, file).Mode&0o777 != 0o604 {
			t.Errorf("restored to %s", got)
		}
		wantAlone(t, in, file)
	}
	for _, told := range []string{"exchanging files is not supported here", "leases are not supported here"} {
		if strings.Count(log.String(), told) != 1 {
			t.Errorf("%q is not told once:\n%s", told, log)
		}
	}
}

// A policy forbids a step of a replacement for good. There is another way to do it, or the file is left to nlserver; it is never
// said to be missing, and nothing is left beside it.
func TestForbiddenStepLeadsToAnotherWay(t *testing.T) {
	for _, x := range []struct {
		name  string
		rules []policy.Rule
		left  bool // to nlserver
	}{
		{"link EPERM", []policy.Rule{policy.Link.Says(unix.EPERM)}, false},
		{"link EACCES", []policy.Rule{policy.Link.Says(unix.EACCES)}, false},
		{"link ENOENT, as without proc", []policy.Rule{policy.Link.Says(unix.ENOENT)}, false},
		{"tmpfile EPERM", []policy.Rule{policy.Tmpfile.Says(unix.EPERM)}, false},
		{"tmpfile EACCES", []policy.Rule{policy.Tmpfile.Says(unix.EACCES)}, false},
		{"exchange EPERM", []policy.Rule{policy.Exchange.Says(unix.EPERM)}, false},
		{"exchange EACCES", []policy.Rule{policy.Exchange.Says(unix.EACCES)}, false},
		{"exchange ENOSYS", []policy.Rule{policy.Exchange.Says(unix.ENOSYS)}, false},
		{"lease EPERM", []policy.Rule{policy.Lease.Says(unix.EPERM)}, false},
		{"lease EACCES", []policy.Rule{policy.Lease.Says(unix.EACCES)}, false},
		{"all of them", []policy.Rule{policy.Link.Says(unix.EPERM), policy.Tmpfile.Says(unix.EPERM), policy.Exchange.Says(unix.EPERM),
			policy.Lease.Says(unix.EPERM)}, false},
		{"exchange and rename", []policy.Rule{policy.Exchange.Says(unix.EPERM), policy.Rename.Says(unix.EPERM)}, true},
		{"exchange and rename, no tmpfile", []policy.Rule{policy.Exchange.Says(unix.EACCES), policy.Rename.Says(unix.EACCES),
			policy.Tmpfile.Says(unix.EPERM)}, true},
		{"extended attribute EPERM", []policy.Rule{policy.SetXattr.Says(unix.EPERM)}, true},
		{"extended attribute ENOTSUP", []policy.Rule{policy.SetXattr.Says(unix.ENOTSUP)}, true},
	} {
		t.Run(strings.ReplaceAll(x.name, " ", "_"), func(t *testing.T) {
			if !policy.Alone(t) {
				return
			}
			in, file, log := newInstanceIn(t, t.TempDir(), drifted)
			if err := unix.Setxattr(file, "user.note", []byte("kept"), 0); err != nil {
				skip.Unable(t, "no extended attributes here: "+err.Error())
			}
			policy.Forbid(t, x.rules...)
			for range 2 {
				if err := os.WriteFile(file, []byte(drifted), 0o640); err != nil {
					t.Fatal(err)
				}
				_, err := in.Restore(t.Context(), right)
				want := document
				if x.left {
					want = drifted
				}
				if errors.Is(err, credential.ErrCannotSplice) != x.left || !x.left && err != nil || errors.Is(err, credential.ErrMissing) {
					t.Errorf("error is %v", err)
				}
				if got := read(t, file); got != want {
					t.Errorf("the file is %s", got)
				}
				wantAlone(t, in, file)
			}
			for _, told := range []string{"exchanging files is not supported here", "leases are not supported here"} {
				if strings.Count(log.String(), told) > 1 {
					t.Errorf("%q is told again:\n%s", told, log)
				}
			}
		})
	}
}

// A flag of the file or the directory forbids it, whatever the rights are.
func TestFlagLeavesTheFileToNlserver(t *testing.T) {
	const immutable, appendOnly = 0x10, 0x20
	for _, x := range []struct {
		name  string
		onDir bool
		flag  int
		says  string
	}{
		{"immutable file", false, immutable, "operation not permitted"},
		{"append-only file", false, appendOnly, "operation not permitted"},
		{"immutable directory", true, immutable, "operation not permitted"},
		{"append-only directory", true, appendOnly, "append-only: chattr -a"},
	} {
		t.Run(x.name, func(t *testing.T) {
			in, file, _ := newInstanceIn(t, onDisk(t), drifted)
			path := file
			if x.onDir {
				path = filepath.Dir(file)
			}
			setFlag(t, path, x.flag)
			for range 2 {
				if _, err := in.Restore(t.Context(), right); !errors.Is(err, credential.ErrCannotSplice) || !strings.Contains(err.Error(), x.says) {
					t.Errorf("error is %v", err)
				}
				wantAlone(t, in, file)
			}
			if got := read(t, file); got != drifted {
				t.Errorf("the file is %s", got)
			}
		})
	}
}

// A name that has room for nothing more leaves none for a copy's.
func TestLongNameLeavesTheFileToNlserver(t *testing.T) {
	file := filepath.Join(t.TempDir(), strings.Repeat("x", 250))
	if err := os.WriteFile(file, []byte(drifted), 0o640); err != nil {
		t.Fatal(err)
	}
	in := sinks.New(sinks.Config{Name: "prod", File: file, StateDir: t.TempDir()})
	if _, err := in.Restore(t.Context(), right); !errors.Is(err, credential.ErrCannotSplice) {
		t.Errorf("error is %v", err)
	}
	if got := read(t, file); got != drifted {
		t.Errorf("the file is %s", got)
	}
	wantAlone(t, in, file)
}

func setFlag(t *testing.T, path string, flag int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	was, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, was|flag)
	}
	if err != nil {
		skip.Unable(t, "flags cannot be set here (not root, or a file system without them): "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, was); err != nil {
			t.Error(err)
		}
	})
}
