package faults_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// stale is a secret-id that Vault does not know any more. Five refusals of it lock the role for every container.
const stale = "00000000-1111-2222-3333-444444444444"

// A container with a stale secret-id, and another one that has a right one for the same role.
func staleWorld(t *testing.T, options container.Options) (w *world.World, right string) {
	w = world.New(t, options)
	w.NewSecret("prod")
	right, err := w.Vault.SecretID(w.Ctx, w.RoleID)
	w.Must(err)
	w.Secrets = append(w.Secrets, right, stale)
	w.Must(os.WriteFile(w.SecretID, []byte(stale+"\n"), 0o600))
	return w, right
}

// logins counts those that came since the last call.
func logins(w *world.World) int { return vaulttest.Count(w.Proxy.Requests(), vaulttest.Request.Login) }

// notLocked demands that the container with the right secret-id can log in.
func notLocked(w *world.World, right string) {
	w.T.Helper()
	if err := login(w, right); err != nil {
		w.T.Errorf("the role is locked: %v", err)
	}
}

// recovers gives the container the right secret-id, too: it is picked up at once.
func recovers(w *world.World, right string) {
	w.T.Helper()
	w.Must(os.WriteFile(w.SecretID, []byte(right+"\n"), 0o600))
	w.InSync(1)
}

// The daemon is restarted all the time, by SIGKILL and SIGTERM in turns, at any moment of its start: Vault hears its stale
// secret-id once, or once more where it was killed before the answer was noted.
func TestStaleSecretIDAndRestarts(t *testing.T) {
	t.Parallel()
	w, right := staleWorld(t, container.Options{Programs: world.Plain()})
	total, restarts, pace := 0, 15, 300*time.Millisecond
	if *full {
		restarts, pace = 200, 6*time.Second // 3 s on average
	}
	for i := range restarts {
		w.StartDaemon()
		select {
		case <-time.After(rand.N(pace)):
		case <-w.Ctx.Done():
		}
		if i%2 == 0 {
			w.Kill()
		} else {
			w.Stop()
		}
		total += logins(w)
		if *full || i == restarts-1 {
			notLocked(w, right) // which makes Vault forget, so not each time where that is all there is
		}
	}
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", w.SecretID, "lock the role for every host")
	if total += logins(w); total < 1 || total > 4 {
		t.Errorf("%d logins with a stale secret-id\n%s", total, w.Log())
	}
	if n := strings.Count(w.Log(), "level=ERROR"); n == 0 {
		t.Errorf("a person is needed, and not told so\n%s", w.Log())
	}
	notLocked(w, right)
	recovers(w, right)
}

// Vault is slow to refuse, and the daemon is gone by then: what was sent counts in Vault, so it counts here.
func TestRestartsBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w, right := staleWorld(t, container.Options{})
	w.Proxy.Serve("/login", func(rw http.ResponseWriter, r *http.Request) {
		// Vault goes on with a request whose sender has gone.
		login(w, stale)
		<-r.Context().Done()
	})
	total := 0
	for i := range 8 {
		w.StartDaemon()
		if i < 2 {
			w.Eventually("it logs in", func() bool {
				n := logins(w)
				total += n
				return n > 0
			})
		} else {
			w.Is("prod", "degraded/login_refused", "cut off before their answer", w.SecretID)
		}
		if i%2 == 0 {
			w.Kill()
		} else {
			w.Stop()
		}
		total += logins(w)
	}
	if total != 2 {
		t.Errorf("%d logins, want 2 at once, and the next minutes later", total)
	}
	notLocked(w, right)
	w.Proxy.Forward()
	w.StartDaemon()
	recovers(w, right)
}

// The same with a secret-id that Vault has accepted before: however often the daemon is killed before the answer, the next one
// logs in at once.
func TestKilledBeforeTheAnswerToARightSecretID(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Stop()
	version, secret := w.NewSecret("prod")
	w.Proxy.Serve("/login", unanswered)
	for range 6 {
		w.Proxy.Requests()
		w.StartDaemon()
		w.Must(w.Proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
		w.Kill()
	}
	w.Proxy.Forward()
	w.StartDaemon()
	w.InSync(version)
	w.Holds("prod", secret)
}

// unanswered is a Vault that takes a request and has not answered when its sender goes.
func unanswered(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // a client that goes away is noticed only then
	<-r.Context().Done()
}

// A command that is stopped while it logs in (^Z) holds up no login of the daemon's, which says so, and none of another command's
// for long. A lock of a stranger's on the secret-id, which a group may read, is nothing to us.
func TestStoppedCommandHoldsUpNoLogin(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	stranger, err := os.Open(w.SecretID)
	w.Must(err)
	defer stranger.Close()
	w.Must(unix.Flock(int(stranger.Fd()), unix.LOCK_EX))
	w.StartDaemon()
	w.InSync(1)
	const goesOn = "login goes on without waiting for another process"
	if strings.Contains(w.Log(), goesOn) {
		t.Errorf("the lock of a stranger is waited for\n%s", w.Log())
	}
	w.Stop()

	w.Proxy.Requests()
	w.Proxy.Serve("/login", unanswered)
	diff := exec.Command(world.Plain().Daemon, "--config", w.Config, "diff")
	w.Must(diff.Start())
	defer diff.Wait()
	defer diff.Process.Kill()
	w.Must(w.Proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
	w.Must(diff.Process.Signal(syscall.SIGSTOP))
	w.Proxy.Forward()
	w.Blank("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", secrets["prod"])
	world.Says(t, w.Log(), goesOn, w.StateDir(), "lslocks")
}

// The commands, by hand and by cron, before the daemon ever ran and after, one after the other and many at once.
func TestStaleSecretIDAndCommands(t *testing.T) {
	t.Parallel()
	commands := [][]string{{"diff"}, {"sync", "--dry-run"}, {"sync"}}
	for _, c := range []struct {
		name   string
		atOnce bool
	}{{"one after the other", false}, {"at once", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, right := staleWorld(t, container.Options{})
			total := 0
			run := func(args []string) {
				stdout, stderr, status := w.Command(w.Ctx, args...)
				says := stdout + stderr
				if status != 1 || !strings.Contains(says, "put a new secret-id there") && !strings.Contains(says, "in use") {
					t.Errorf("%v ended with %d: %s", args, status, says)
				}
			}
			var all sync.WaitGroup
			for range 3 {
				for _, args := range commands {
					if c.atOnce && len(args) == 1 && args[0] == "sync" {
						continue // a second one is refused for the lock, which is not what is asked here
					}
					if c.atOnce {
						all.Go(func() { run(args) })
					} else {
						run(args)
					}
				}
			}
			all.Wait()
			if total += logins(w); total != 1 {
				t.Errorf("%d logins", total)
			}
			info, err := os.Stat(w.StateDir())
			w.Must(err)
			if info.Mode().Perm() != 0o700 {
				t.Errorf("the state directory has mode %v", info.Mode())
			}
			w.StartDaemon()
			w.Is("prod", "degraded/login_refused", "put a new secret-id there")
			if total += logins(w); total != 1 {
				t.Errorf("%d logins with the daemon's", total)
			}
			notLocked(w, right)
			recovers(w, right)
		})
	}
}

// A command of root leaves a state directory that belongs to Campaign's user, so that the daemon can go on with it.
func TestStateDirectoryOfACommandIsCampaigns(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w, _ := staleWorld(t, container.Options{})
	const somebody = 12345
	w.Must(os.Chown(w.Home, somebody, somebody))
	w.RunCommand("diff")
	for _, path := range []string{w.StateDir(), filepath.Join(w.StateDir(), "digest.key"), filepath.Join(w.StateDir(), "refused-secret-id.json")} {
		info, err := os.Stat(path)
		w.Must(err)
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != somebody {
			t.Errorf("%s belongs to %d", path, owner)
		}
	}
}

// Where nothing can be remembered the command says so, with what to do.
func TestRefusalThatCannotBeRemembered(t *testing.T) {
	t.Parallel()
	w, _ := staleWorld(t, container.Options{})
	config, err := os.ReadFile(w.Config)
	w.Must(err)
	file := filepath.Join(w.Dir, "file")
	w.Must(os.WriteFile(file, nil, 0o600))
	for _, c := range []struct {
		dir    string
		logins int
		says   []string
	}{
		{"/proc/credsync-test/state", 1, []string{"not remembered", "make state_dir a directory", "do not try again"}},
		{file, 0, []string{"not a directory"}},
	} {
		w.Must(os.WriteFile(w.Config, []byte(strings.Replace(string(config), w.StateDir(), c.dir, 1)), 0o600))
		_, stderr, status := w.RunCommand("diff")
		if status != 1 {
			t.Errorf("%s: diff ended with %d", c.dir, status)
		}
		world.Says(t, stderr, c.says...)
		if n := logins(w); n != c.logins {
			t.Errorf("%s: %d logins, want %d: %s", c.dir, n, c.logins, stderr)
		}
	}
}

// Whoever keeps asking by hand cannot lock the role either, and there is a try left for a right secret-id.
func TestStaleSecretIDAndSignals(t *testing.T) {
	t.Parallel()
	w, right := staleWorld(t, container.Options{})
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", "put a new secret-id there")
	total := logins(w)
	for i := range 10 {
		w.Signal(syscall.SIGUSR1)
		w.Pass()
		w.HangUp()
		w.Eventually("the new daemon has looked", func() bool { _, err := w.Asker().Sync(w.Ctx); return err == nil })
		n := logins(w)
		total += n
		if i == 0 && n == 0 {
			t.Error("the first word of a person is not obeyed")
		}
	}
	if total < 2 || total > 3 { // one that was cut off by SIGHUP counts, whether it got there or not
		t.Errorf("%d logins, want 3", total)
	}
	w.Is("prod", "degraded/login_refused", "not even SIGHUP or SIGUSR1", w.SecretID, "next login not before")
	// Another wrong one is tried, once, and then no other for a while.
	for i := range 4 {
		w.Must(os.WriteFile(w.SecretID, fmt.Appendf(nil, "00000000-1111-2222-3333-%012d\n", i), 0o600))
		w.Signal(syscall.SIGUSR1)
		w.Pass()
	}
	if total += logins(w); total > 4 {
		t.Errorf("%d logins with five stale secret-ids, want 4", total)
	}
	notLocked(w, right)
}

// The same, and the secret-id that follows is the right one.
func TestRightSecretIDAfterManyTries(t *testing.T) {
	t.Parallel()
	w, right := staleWorld(t, container.Options{})
	w.StartDaemon()
	for range 4 {
		w.Signal(syscall.SIGUSR1)
		w.Pass()
	}
	w.Is("prod", "degraded/login_refused", "not even SIGHUP or SIGUSR1")
	recovers(w, right)
}
