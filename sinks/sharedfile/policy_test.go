package sharedfile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/policy"
	"campaign-credsync/test/skip"
)

// A file system that has neither the exchange nor leases, as NFS, or a policy that forbids a step of a replacement for good: there is
// another way to do it, and what is lacking is said once, or the file is left to nlserver. It is never said to be missing, and nothing is
// left beside it.
func TestForbiddenStepLeadsToAnotherWay(t *testing.T) {
	const noExchange, noLeases = "exchanging files is not supported here", "leases are not supported here"
	for _, x := range []struct {
		name  string
		rules []policy.Rule
		told  string
		left  bool // to nlserver
	}{
		{"exchange EPERM", []policy.Rule{policy.Exchange.Says(unix.EPERM)}, noExchange, false},
		{"exchange EACCES", []policy.Rule{policy.Exchange.Says(unix.EACCES)}, noExchange, false},
		{"exchange ENOSYS", []policy.Rule{policy.Exchange.Says(unix.ENOSYS)}, noExchange, false},
		{"lease EPERM", []policy.Rule{policy.Lease.Says(unix.EPERM)}, noLeases, false},
		{"lease EACCES", []policy.Rule{policy.Lease.Says(unix.EACCES)}, noLeases, false},
		{"as NFS", []policy.Rule{policy.Exchange.Says(unix.EINVAL), policy.Lease.Says(unix.EINVAL)}, noExchange, false},
		{"exchange and rename", []policy.Rule{policy.Exchange.Says(unix.EPERM), policy.Rename.Says(unix.EPERM)}, "", true},
		{"no file without a name EOPNOTSUPP", []policy.Rule{policy.Unnamed.Says(unix.EOPNOTSUPP)}, "", false},
		{"no file without a name EISDIR", []policy.Rule{policy.Unnamed.Says(unix.EISDIR)}, "", false},
		{"no link EPERM", []policy.Rule{policy.Link.Says(unix.EPERM)}, "", false},
		{"no link ENOENT, as without /proc", []policy.Rule{policy.Link.Says(unix.ENOENT)}, "", false},
		{"extended attribute EPERM", []policy.Rule{policy.SetXattr.Says(unix.EPERM)}, "", true},
		{"extended attribute ENOTSUP", []policy.Rule{policy.SetXattr.Says(unix.ENOTSUP)}, "", true},
	} {
		t.Run(strings.ReplaceAll(x.name, " ", "_"), func(t *testing.T) {
			if !policy.Alone(t) {
				return
			}
			f, path, log := newFile(t, t.TempDir(), drifted)
			if err := unix.Setxattr(path, "user.note", []byte("kept"), 0); err != nil {
				skip.Unable(t, "no extended attributes here: "+err.Error())
			}
			policy.Forbid(t, x.rules...)
			for range 2 {
				write(t, path, drifted)
				err := f.Update(t.Context(), restore)
				want := right
				if x.left {
					want = drifted
				}
				if errors.Is(err, credential.ErrCannotSplice) != x.left || !x.left && err != nil || errors.Is(err, credential.ErrMissing) {
					t.Errorf("error is %v", err)
				}
				wantAlone(t, f, want)
			}
			if n := strings.Count(log.String(), x.told); x.told != "" && n != 1 {
				t.Errorf("%q is told %d times:\n%s", x.told, n, log)
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
			f, path, _ := newFile(t, onDisk(t), drifted)
			if x.onDir {
				setFlag(t, filepath.Dir(path), x.flag)
			} else {
				setFlag(t, path, x.flag)
			}
			for range 2 {
				if err := f.Update(t.Context(), restore); !errors.Is(err, credential.ErrCannotSplice) || !strings.Contains(err.Error(), x.says) {
					t.Errorf("error is %v", err)
				}
				wantAlone(t, f, drifted)
			}
		})
	}
}

// A name that has room for nothing more leaves none for a copy's.
func TestLongNameLeavesTheFileToNlserver(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 250))
	write(t, path, drifted)
	f := New(path, wellFormed, nil)
	if err := f.Update(t.Context(), restore); !errors.Is(err, credential.ErrCannotSplice) {
		t.Errorf("error is %v", err)
	}
	wantAlone(t, f, drifted)
}

// A directory in which the daemon may make no file is no reason to leave the drift: nlserver writes the file in place.
func TestDirectoryThatCannotBeWrittenLeavesItToNlserver(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root, and to be somebody else for a moment")
	}
	f, path, _ := newFile(t, t.TempDir(), drifted)
	if err := errors.Join(os.Chown(path, nobody, nobody), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
		t.Fatal(err)
	}
	p, err := f.locate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.dir.Close()
	old, err := p.openQuiet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	asNobody(func() { _, err = p.newCopy(old, []byte(drifted), []byte(right)) })
	if !errors.Is(err, credential.ErrCannotSplice) || !errors.Is(err, unix.EACCES) {
		t.Errorf("error is %v", err)
	}
}

const nobody = 65534

// asNobody does something with the rights of the user nobody: what root may do hides what the daemon may not.
func asNobody(do func()) {
	runtime.LockOSThread() // the kernel has it by thread
	defer runtime.UnlockOSThread()
	unix.SetfsgidRetGid(nobody)
	unix.SetfsuidRetUid(nobody)
	defer unix.SetfsuidRetUid(0)
	defer unix.SetfsgidRetGid(0)
	do()
}

func setFlag(t *testing.T, path string, flag int) {
	t.Helper()
	set := func(change func(int) int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		was, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, change(was))
	}
	if err := set(func(was int) int { return was | flag }); err != nil {
		skip.Unable(t, "flags cannot be set here (not root, or a file system without them): "+err.Error())
	}
	t.Cleanup(func() {
		if err := set(func(was int) int { return was &^ flag }); err != nil {
			t.Error(err)
		}
	})
}
