package faults_test

import (
	"campaign-credsync/test/skip"
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// The Nth system call of a rotation and of a revert fails, N = 1, 2, 3 … until there are no more, once, or with every later one
// of its name until the fault is over. The daemon lives, does not claim what is not so, and is in sync when all is well again.
func TestEverySystemCallFails(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		skip.Unable(t, "the tracer can make calls fail on amd64 only")
	}
	errnos, repeats := []string{"ENOSPC", "EIO", "EROFS", "EACCES", "EMFILE", "EINTR"}, []bool{false, true}
	if !*full {
		errnos, repeats = errnos[:1], repeats[1:]
	}
	tracer := buildTracer(t)
	for _, change := range []change{rotation, revert} {
		calls := listCalls(t, tracer, change)
		for _, errno := range errnos {
			for _, repeat := range repeats {
				if repeat && errno == "EINTR" {
					continue // means "try again", which the standard library does until it works
				}
				name := fmt.Sprintf("%s, %s %s", change.name, errno, map[bool]string{false: "once", true: "until it is over"}[repeat])
				inParts(t, name, calls, func(s *sweep, n int) {
					s.trace(tracer, "-at", fmt.Sprint(n), "-error", errno, fmt.Sprintf("-repeat=%v", repeat))
					change.begin(s)
					var meanwhile func(call)
					if repeat {
						meanwhile = s.honest
					}
					at := s.hits(change, meanwhile)
					if at.N == 0 {
						return
					}
					began := time.Now()
					s.w.Signal(syscall.SIGUSR1)
					s.w.OnDisk("prod", s.secret)
					s.settles(at)
					if took := time.Since(began); took > 900*time.Millisecond {
						s.w.T.Logf("%v, %s: in sync after %v", at, errno, took)
					}
					change.done(s, at)
				})
			}
		}
	}
}

// honest demands of a daemon for which a system call fails that it does not claim to be in sync where it is not, as soon as it was
// asked to look. That it cannot answer is no lie.
func (s *sweep) honest(at call) {
	w := s.w
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.Ctx, 500*time.Millisecond)
	defer cancel()
	status, err := w.Asker().Sync(ctx)
	select {
	case <-w.Running.Ended():
		w.T.Fatalf("the daemon ended of %v\n%s", at, w.Log())
	default:
	}
	if err != nil || !status.Applied(s.version) {
		return
	}
	if got, err := w.SecretOnDisk(w.Ctx, "prod"); err != nil || got != s.secret {
		w.T.Errorf("while there is %v it says that all is in sync, and the secret on disk is another (%v)\n%s", at, err, w.Log())
	}
}
