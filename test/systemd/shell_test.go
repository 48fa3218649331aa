//go:build systemd

package systemd

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// shell is a bash of root in the container, to which lines are sent as if they were typed: what is sent behind a command that reads is
// read by that command.
type shell struct {
	in      io.WriteCloser
	said    console
	bash    *exec.Cmd
	ended   chan struct{} // closed when bash has ended
	started int           // commands
}

func (m *machine) openShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{ended: make(chan struct{})}
	s.bash = exec.Command("nsenter", "--target", strconv.Itoa(m.leader), "--all", "--", "bash", "--noprofile", "--norc")
	s.bash.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	s.bash.Dir = "/"
	s.bash.Stdout, s.bash.Stderr = &s.said, &s.said
	s.bash.WaitDelay = 10 * time.Second
	var err error
	if s.in, err = s.bash.StdinPipe(); err == nil {
		err = s.bash.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		s.bash.Wait()
	}()
	s.send(t, "cd /root\nset -eo pipefail\n")
	return s
}

// send types lines, and waits for nothing.
func (s *shell) send(t *testing.T, lines string) {
	t.Helper()
	if _, err := io.WriteString(s.in, lines); err != nil {
		t.Fatalf("the shell has ended: %v\n%s", err, tail(s.said.String(), 20))
	}
}

func (s *shell) export(t *testing.T, name, value string) {
	t.Helper()
	s.send(t, fmt.Sprintf("export %s='%s'\n", name, value))
}

// run types a command and waits for its end. A command that fails ends the shell, and ok is false.
func (s *shell) run(t *testing.T, command string) (said string, ok bool) {
	t.Helper()
	s.started++
	begin, end := fmt.Sprintf("::begin %d\n", s.started), fmt.Sprintf("::end %d\n", s.started)
	s.send(t, "echo '"+strings.TrimSpace(begin)+"'\n"+command+"\necho '"+strings.TrimSpace(end)+"'\n")
	await(t, "the end of "+command, patience, func() bool {
		said, ok = strings.CutSuffix(s.said.String(), end)
		select {
		case <-s.ended:
			return true
		default:
			return ok
		}
	})
	_, said, _ = strings.Cut(said, begin)
	return said, ok
}

func (s *shell) close(t *testing.T) {
	s.in.Close()
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Errorf("the shell does not end:\n%s", tail(s.said.String(), 20))
		s.bash.Process.Kill()
		<-s.ended
	}
}
