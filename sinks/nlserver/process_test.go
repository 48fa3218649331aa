package nlserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/skip"
)

// A stopped run takes its children with it. The pipe that only they inherit ends when the last of them is gone.
func TestStopKillsTheGroup(t *testing.T) {
	for _, test := range []struct {
		name    string
		timeout time.Duration // 0: the context is cancelled
		want    error
	}{
		{"timeout", 3 * time.Second, context.DeadlineExceeded},
		{"cancelled", 0, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHome(t, `printf '`+nlTestSecret[:20]+`'; sh -c 'trap "" TERM; sleep 600' & echo ready >$H/fifo; sleep 600`)
			ready := h.fifo("fifo")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var waiting sync.WaitGroup
			waiting.Go(func() {
				ready()
				if test.timeout == 0 {
					cancel()
				}
			})
			n := h.server(func(c *Config) {
				if test.timeout != 0 {
					c.Timeout = test.timeout
				}
			})
			said, err := n.set(ctx, "prod", nlTestCredential, w)
			waiting.Wait()
			w.Close()
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want one that wraps %v", err, test.want)
			}
			mustSay(t, err, "stopped")
			mustHide(t, said)
			if _, err := io.ReadAll(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// An nlserver that is writing gets the time to finish, also behind a wrapper that dies at once.
func TestStopLetsAWriterFinish(t *testing.T) {
	h := newFakeHome(t, `
cat >$H/writer <<'END'
trap 'sleep 0.1; echo whole >$H/written; exit 0' TERM
echo ready >$H/fifo
while :; do sleep 0.01; done
END
export H
sh $H/writer &
wait`)
	ready := h.fifo("fifo")
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() { ready(); cancel() })
	_, err := h.server().set(ctx, "prod", nlTestCredential, nil)
	waiting.Wait()
	mustSay(t, err, "stopped: context canceled")
	if got := h.read("written"); got != "whole\n" {
		t.Errorf("the writer left %q", got)
	}
}

// A reload that is under way at a stop has a moment to finish, and no more.
func TestStopLetsAReloadFinish(t *testing.T) {
	for name, test := range map[string]struct {
		takes string
		want  error
	}{"short": {"0.1", nil}, "endless": {"600", context.Canceled}} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHome(t, `echo ready >$H/fifo; sleep `+test.takes)
			ready := h.fifo("fifo")
			ctx, cancel := context.WithCancel(t.Context())
			var waiting sync.WaitGroup
			waiting.Go(func() { ready(); cancel() })
			if err := h.server().activate(ctx, stepOf("reload"), time.Time{}); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			waiting.Wait()
		})
	}
}

// A child of nlserver's that keeps the output open does not hold us up, lives on, and keeps what it inherited.
func TestGrandchildMayOutliveTheRun(t *testing.T) {
	h := newFakeHome(t, `sleep 600 & echo $! >$H/pid; echo done`)
	lock, err := os.Create(h.file("lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	said, err := h.server().set(t.Context(), "prod", nlTestCredential, lock)
	if err != nil || said != "done" {
		t.Fatalf("got %q, %v", said, err)
	}
	lock.Close()

	later, err := os.Open(h.file("lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if err := syscall.Flock(int(later.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the lock is free while a child of nlserver lives: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(h.read("pid")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal("the child of nlserver is gone: ", err)
	}
	if err := syscall.Flock(int(later.Fd()), syscall.LOCK_EX); err != nil {
		t.Error(err)
	}
}

// What prints after its run is no more read from: an apply gets its words out, so that it writes its file and lets its lock go. All
// else gets EPIPE.
func TestPrintingToNobody(t *testing.T) {
	for _, apply := range []bool{true, false} {
		h := newFakeHome(t, `echo $$ >$H/pid; { read -r line <$H/go; head -c 500000 /dev/zero; echo $? >$H/status; } &`)
		for _, name := range []string{"go", "status"} {
			if err := syscall.Mkfifo(h.file(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		status, err := os.OpenFile(h.file("status"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer status.Close()
		var inherit *os.File
		if apply {
			if inherit, err = os.Create(h.file("lock")); err != nil {
				t.Fatal(err)
			}
			defer inherit.Close()
		}
		if _, err := h.server().set(t.Context(), "prod", nlTestCredential, inherit); err != nil {
			t.Fatal(err)
		}
		h.write("go", "\n", 0)
		_ = status.SetReadDeadline(time.Now().Add(time.Minute))
		printed, err := bufio.NewReader(status).ReadString('\n')
		if err != nil {
			if group, err := strconv.Atoi(strings.TrimSpace(h.read("pid"))); err == nil {
				_ = syscall.Kill(-group, syscall.SIGKILL)
			}
			t.Errorf("apply %t: it prints for ever: %v", apply, err)
		} else if wrote := printed == "0\n"; wrote != apply {
			t.Errorf("apply %t: head ended with %s", apply, printed)
		}
	}
}

func TestChildInheritsNothingElse(t *testing.T) {
	h := newFakeHome(t, `for i in 3 4 5 6 7 8 9; do if [ -e /proc/$$/fd/$i ]; then echo $i; fi; done >$H/open
readlink /proc/$$/fd/0 >>$H/open`)
	n := h.server()
	inherited, err := os.Create(h.file("inherited"))
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	for _, test := range []struct {
		inherit *os.File
		want    string
	}{{nil, "/dev/null\n"}, {inherited, "3\n/dev/null\n"}} {
		if _, err := n.set(t.Context(), "prod", nlTestCredential, test.inherit); err != nil {
			t.Fatal(err)
		}
		if got := h.read("open"); got != test.want {
			t.Errorf("open descriptors: %q, want %q", got, test.want)
		}
	}
}

// A core file would hold the arguments.
func TestChildLeavesNoCore(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	raised := limit
	raised.Cur = raised.Max
	if raised.Max == 0 {
		skip.Unable(t, "core files are off for good")
	}
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &raised); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(unix.RLIMIT_CORE, &limit) })
	h := newFakeHome(t, `until [ "$(ulimit -c)" = 0 ]; do :; done`)
	if _, err := h.server().set(t.Context(), "prod", nlTestCredential, nil); err != nil {
		t.Error(err)
	}
}

func TestMuchOutput(t *testing.T) {
	h := newFakeHome(t, `echo first; head -c 100000000 /dev/zero | tr '\0' '\n'; echo 'last (iRc=5)'; exit 1`)
	said, err := h.server().set(t.Context(), "prod", nlTestCredential, nil)
	mustSay(t, err, "last (iRc=5)")
	if said != "last (iRc=5)" {
		t.Errorf("it said %q", said)
	}
}

func TestTailKeepsTheEndWithinBounds(t *testing.T) {
	const limit = 10000
	output := &tail{limit: limit}
	for range 10000 {
		fmt.Fprint(output, strings.Repeat("x", 99), "\n")
	}
	fmt.Fprint(output, "y\nend\n")
	if cap(output.kept) > 5*limit {
		t.Errorf("holds %d bytes", cap(output.kept))
	}
	if text := string(output.kept); len(text) < limit-100 || !strings.HasSuffix(text, "x\ny\nend\n") {
		t.Errorf("%d bytes, the end is %q", len(text), text[len(text)-20:])
	}
}

// Wherever the cuts fall, no piece of the secret is left.
func TestCutNeverSplitsTheSecret(t *testing.T) {
	const limit = 512
	for _, form := range []string{
		"x " + nlTestSecret + " x\n", nlTestSecret, nlTestSecret + "\n", "\n" + nlTestSecret,
		"ABCDEF@techacct.adobe.com/" + nlTestSecret + "\r\n",
	} {
		for _, filler := range []string{"x", "\n"} {
			for behind := limit - 100; behind < limit+20; behind++ { // where the first cut falls
				output := &tail{limit: limit}
				fmt.Fprint(output, strings.Repeat(filler, 2*limit), form, strings.Repeat(filler, behind))
				mustHide(t, redact(string(output.kept), nlTestCredential.ClientSecret))
			}
		}
	}
	for end := range nlTestSecret {
		if got := redact("line "+nlTestSecret[:end], nlTestCredential.ClientSecret); end > 6 && got != "line [redacted]" {
			t.Fatalf("of an output that broke off: %q", got)
		}
	}
}

// What is no data stays readable.
func TestRedactLeavesMessages(t *testing.T) {
	for _, message := range []string{
		"17:11:03 > Unable to open '/usr/local/neolane/nl6/conf/config-prod.xml': Permission denied (iRc=-53)",
		"Application server for Adobe Campaign Classic (7.4.1 build 9383) of 12/05/2025",
		"XTK-170065 Error while authenticating. INT-150012, module pipelined@prod: it's a re-read!",
		"nlserver: error while loading shared libraries: libneolane.so: cannot open shared object file: No such file or directory",
		"Unknown option '-setimsoauth' [Impossible d'accéder]",
	} {
		if got := redact(message); got != message {
			t.Errorf("%s\n%s", message, got)
		}
	}
}
