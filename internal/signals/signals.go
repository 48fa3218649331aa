// Package signals catches what the daemon is sent before it is ready to act on it: without a handler SIGHUP and SIGUSR1 end
// a process. It imports next to nothing, so that Go initializes it ahead of the packages that take their time.
package signals

import (
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

// Reload and Check have room for one signal each: more ask for nothing more.
var (
	Reload = make(chan os.Signal, 1) // SIGHUP
	Check  = make(chan os.Signal, 1) // SIGUSR1
)

func init() {
	// The kernel hands a signal of the process to its main thread. Only main runs there, as a thread that hangs in a system call
	// on a dead mount takes no signal.
	runtime.LockOSThread()
	// Other commands end with their terminal.
	if isRun(os.Args[1:]) {
		signal.Notify(Reload, syscall.SIGHUP)
		signal.Notify(Check, syscall.SIGUSR1)
	}
}

// isRun reports whether the command of these arguments is run. As for cobra, a flag ahead of the command takes the next argument as its
// value, unless it holds "=".
func isRun(args []string) bool {
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			return args[i] == "run"
		}
		if !strings.Contains(args[i], "=") {
			i++
		}
	}
	return false
}
