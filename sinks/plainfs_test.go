package sinks

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/logtest"
)

// refuseExtras has the kernel refuse to this process, for good, what file systems such as NFS do not have: renames with
// flags, files without a name, leases.
func refuseExtras(t *testing.T) {
	t.Helper()
	const (
		number, second, third = 0, 16 + 8, 16 + 16 // where seccomp_data has the call's number and arguments
		tmpfile               = 0x400000           // O_TMPFILE without O_DIRECTORY
		refuse                = unix.SECCOMP_RET_ERRNO
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jump := func(kind uint16, value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | kind, K: value, Jt: yes, Jf: no}
	}
	ret := func(value uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value} }
	filter := []unix.SockFilter{
		load(number),
		jump(unix.BPF_JEQ, unix.SYS_RENAMEAT2, 7, 0),
		jump(unix.BPF_JEQ, unix.SYS_OPENAT, 2, 0),
		jump(unix.BPF_JEQ, unix.SYS_FCNTL, 3, 0),
		ret(unix.SECCOMP_RET_ALLOW),
		load(third),
		jump(unix.BPF_JSET, tmpfile, 3, 4),
		load(second),
		jump(unix.BPF_JEQ, unix.F_SETLEASE, 0, 2),
		ret(refuse | uint32(unix.EINVAL)),
		ret(refuse | uint32(unix.EOPNOTSUPP)),
		ret(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		t.Fatal(errno)
	}
}

// On a file system that has neither the exchange nor leases nor files without a name, drift is put back all the same, and
// what is lacking is said once.
func TestRestoreOnAFileSystemWithoutExtras(t *testing.T) {
	const inside = "CREDSYNC_TEST_WITHOUT_EXTRAS"
	if os.Getenv(inside) == "" {
		again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), inside+"=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	log := new(logtest.Buffer)
	file := filepath.Join(t.TempDir(), "config-prod.xml")
	in := NewInstance(InstanceConfig{Name: "prod", File: file, StateDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(log, nil))})
	refuseExtras(t)
	for range 2 {
		if err := os.WriteFile(file, []byte(swapDrifted), 0o604); err != nil {
			t.Fatal(err)
		}
		found, err := in.Restore(t.Context(), swapWanted)
		if err != nil || len(credential.Drift(swapWanted, found)) == 0 {
			t.Fatal(found, err)
		}
		if all := contents(t, filepath.Dir(file)); len(all) != 1 || all["config-prod.xml"] != "-rw----r-- "+swapRight {
			t.Errorf("there is %q", all)
		}
	}
	for _, told := range []string{"exchanging files is not supported here", "leases are not supported here"} {
		if strings.Count(log.String(), told) != 1 {
			t.Errorf("%q is not told once:\n%s", told, log)
		}
	}
}
