// Package policy has the kernel forbid system calls to a test, as seccomp filters of containers, security modules and file systems
// do.
package policy

import (
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rule names a call, and what it answers. Where Argument is not 0, the rule is for calls whose argument of that number, counted
// from 1, has all of the bits With (Equal false) or is With (Equal true).
type Rule struct {
	Call     uint32
	Argument uint32
	With     uint32
	Equal    bool
	Answer   unix.Errno
}

// Calls that replacing a file takes, as they are forbidden: those with flags by their flags.
var (
	Exchange = Rule{Call: unix.SYS_RENAMEAT2}
	Rename   = Rule{Call: unix.SYS_RENAMEAT}
	Lease    = Rule{Call: unix.SYS_FCNTL, Argument: 2, With: unix.F_SETLEASE, Equal: true}
	SetXattr = Rule{Call: unix.SYS_FSETXATTR}
	Unnamed  = Rule{Call: unix.SYS_OPENAT, Argument: 3, With: unix.O_TMPFILE &^ unix.O_DIRECTORY}
	Link     = Rule{Call: unix.SYS_LINKAT}
)

// Says is the rule with an answer.
func (r Rule) Says(answer unix.Errno) Rule {
	r.Answer = answer
	return r
}

// Alone runs the test again in a process of its own, as a policy holds for good, and reports whether this is that process.
func Alone(t *testing.T) bool {
	t.Helper()
	const inside = "CREDSYNC_TEST_ALONE"
	if os.Getenv(inside) == t.Name() {
		return true
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), inside+"="+t.Name())
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// Forbid holds for the whole process, for good.
func Forbid(t *testing.T, rules ...Rule) {
	t.Helper()
	const number, arguments = 0, 16 // where seccomp_data has them
	var filter []unix.SockFilter
	load := func(at uint32) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at})
	}
	jump := func(kind uint16, value uint32, otherwise uint8) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | kind, K: value, Jf: otherwise})
	}
	ret := func(value uint32) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value})
	}
	for _, r := range rules {
		load(number)
		if r.Argument == 0 {
			jump(unix.BPF_JEQ, r.Call, 1)
		} else {
			jump(unix.BPF_JEQ, r.Call, 3)
			load(arguments + (r.Argument-1)*8)
			kind := uint16(unix.BPF_JSET)
			if r.Equal {
				kind = unix.BPF_JEQ
			}
			jump(kind, r.With, 1)
		}
		ret(unix.SECCOMP_RET_ERRNO | uint32(r.Answer))
	}
	ret(unix.SECCOMP_RET_ALLOW)
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
