// Tracer follows the system calls of one process, all of its threads and none of its children, counts them, and interferes at
// the one it was told: the process is killed there, or the call fails. It is for tests of what a crash at any moment leaves
// behind. strace can inject too, but counts for each thread and each call by itself, and the threads of a Go program take turns
// as they like; here the Nth call is the Nth of the process, so that N = 1, 2, 3 … leaves none out.
//
// It prints a JSON object a line: {"attached": true} when it follows every thread, what it interfered with, and at the end the
// number of calls. It ends with the process, or, leaving that alone from then on, when its standard input ends.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func main() {
	t := tracer{threads: map[int]*thread{}, out: json.NewEncoder(os.Stdout)}
	flag.IntVar(&t.pid, "pid", 0, "the process")
	flag.IntVar(&t.at, "at", 0, "interfere with this call, counted from 1; 0: with none")
	flag.StringVar(&t.after, "after", "", "interfere with the first call after one of this name, such as renameat2")
	flag.StringVar(&t.first, "first", "", "interfere with the first call of this name; with -after, after one of that")
	flag.BoolVar(&t.pause, "pause", false, "have the thread that makes the call wait before it until standard input ends, and do not kill the process")
	name := flag.String("error", "", "let it fail with this error, such as EIO, and do not kill the process")
	flag.BoolVar(&t.repeat, "repeat", false, "let every later call of the same name fail, too")
	flag.BoolVar(&t.children, "children", false, "kill the descendants with the process")
	flag.BoolVar(&t.waiting, "exec", false, "count from the next exec on")
	flag.BoolVar(&t.list, "list", false, "print every call")
	flag.Var(&t.watched, "files", "with -list: print what this directory holds before each call that may change it, and at the end; may be given again")
	flag.Parse()
	if *name != "" {
		if t.errno = errnoNamed(*name); t.errno == 0 {
			fail(fmt.Errorf("there is no error %q", *name))
		}
	}

	// The kernel knows threads as tracers, not processes.
	runtime.LockOSThread()
	if err := t.attach(); err != nil {
		fail(err)
	}
	t.out.Encode(map[string]bool{"attached": true})
	var leave atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		leave.Store(true)
		// Go's runtime ignores this signal when nobody asked for it. It makes the process stop, and so ends the wait for that.
		unix.Tgkill(t.pid, t.pid, unix.SIGURG)
	}()
	if err := t.follow(&leave); err != nil {
		fail(err)
	}
	t.out.Encode(map[string]any{"calls": t.count, "files": t.watched.files()})
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "tracer:", err)
	os.Exit(1)
}

func errnoNamed(name string) unix.Errno {
	for e := unix.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return 0
}
