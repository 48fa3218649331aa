package main

import "golang.org/x/sys/unix"

// skipCall has the kernel leave the call out that a thread is about to begin, and answer with an error.
func skipCall(tid int, errno unix.Errno) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Orig_rax, r.Rax = ^uint64(0), uint64(-int64(errno))
	return unix.PtraceSetRegs(tid, &r)
}

// setResult replaces the result of a call that was done.
func setResult(tid int, errno unix.Errno) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Rax = uint64(-int64(errno))
	return unix.PtraceSetRegs(tid, &r)
}
