package main

import (
	"os"
	"os/signal"
	"syscall"
)

// runBelow runs the daemon as a child, and waits for it and for every orphan of the container: as process 1 this one is their parent,
// and what nobody waits for stays as a zombie. The daemon cannot do that beside its work, as it would take the ends of its own commands
// from who waits for them. Signals are passed on; those of a terminal are not for the child's group, which would get them twice.
func runBelow(executable string) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGQUIT)
	child, err := os.StartProcess(executable, os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return exitFailed, err
	}
	ended := make(chan int)
	go func() { ended <- reapUntil(child.Pid) }()
	for {
		select {
		case s := <-signals:
			_ = syscall.Kill(child.Pid, s.(syscall.Signal)) // it may have ended just now
		case status := <-ended:
			return status, nil
		}
	}
}

// reapUntil waits for children until that one has ended, and returns its exit status as a shell has it.
func reapUntil(pid int) int {
	for {
		var status syscall.WaitStatus
		switch ended, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR || err == nil && ended != pid:
		case err != nil:
			return exitFailed
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}
