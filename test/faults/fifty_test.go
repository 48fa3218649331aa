package faults_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	credsync "campaign-credsync/sync"
	"campaign-credsync/test/container"
	"campaign-credsync/test/fleet"
	"campaign-credsync/test/world"
)

// applied is what the daemons of a fleet have told that they applied.
type applied struct {
	mu       sync.Mutex
	versions []map[int]bool // by host
	reasons  []string       // by host: the last error
}

func (a *applied) status(i int, s []credsync.InstanceStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.versions[i][s[0].AppliedVersion] = true
	a.reasons[i] = s[0].LastError
}

// missing lists who has not applied a version.
func (a *applied) missing(version int) (who []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, versions := range a.versions {
		if !versions[version] {
			who = append(who, fmt.Sprintf("host %d: %s", i, a.reasons[i]))
		}
	}
	return who
}

// Fifty containers with one role, three of which come to have a stale secret-id, are restarted again and again, and asked by
// hand. The other 47, whose tokens live for seconds, log in all the time: they apply each rotation, as the role is never locked.
// The three are processes, the others daemon cores in this one: the real code of sources and sync (package fleet).
func TestThreeStaleContainersOfFifty(t *testing.T) {
	t.Parallel()
	rotations := 3
	if *full {
		rotations = 30
	}
	first := world.New(t, container.Options{TokenTTL: 6 * time.Second, Programs: world.Plain()})
	three := []*world.World{first}
	for range 2 {
		three = append(three, world.New(t, container.Options{Beside: first.Container, Programs: world.Plain()}))
	}
	others := &applied{versions: make([]map[int]bool, 47), reasons: make([]string, 47)}
	hosts := make([]*fleet.Host, len(others.versions))
	version, secret := first.NewSecret("prod")
	for i := range hosts {
		others.versions[i] = map[int]bool{}
		secretID, err := first.Vault.SecretID(first.Ctx, first.RoleID)
		first.Must(err)
		dir := filepath.Join(first.Dir, "fleet", fmt.Sprint(i))
		first.Must(os.MkdirAll(dir, 0o700))
		hosts[i], err = fleet.Start(fleet.Config{
			Dir: dir, Address: first.Vault.Address, AuthMount: first.Vault.AuthMount, RoleID: first.RoleID, SecretID: secretID,
			Mount: first.Vault.Mount, Path: first.SecretPath("prod"), Poll: time.Second,
			OnStatus: func(s []credsync.InstanceStatus) { others.status(i, s) },
		})
		first.Must(err)
		defer func() {
			if err := hosts[i].Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}()
	}
	all := func(version int, secret string) {
		t.Helper()
		for deadline := time.Now().Add(world.Patience); len(others.missing(version)) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) || t.Context().Err() != nil {
				t.Fatalf("version %d is missed:\n%s", version, strings.Join(others.missing(version), "\n"))
			}
		}
		for i, h := range hosts {
			if h.ClientSecret() != secret {
				t.Errorf("host %d holds another secret than that of version %d", i, version)
			}
		}
	}
	for _, w := range three {
		w.Secrets = append(w.Secrets, secret)
		w.StartDaemon()
		w.InSync(version)
	}
	all(version, secret)

	for _, w := range three {
		old, err := os.ReadFile(w.SecretID)
		w.Must(err)
		w.Must(w.Vault.DestroySecretID(w.Ctx, w.RoleID, strings.TrimSpace(string(old))))
	}
	for _, w := range three { // their tokens end within seconds
		w.Is("prod", "degraded/login_refused", w.SecretID, "put a new secret-id there")
		logins(w)
	}
	stale := 0
	for i := range rotations {
		version, secret = first.NewSecret("prod")
		for k, w := range three {
			w.Secrets = append(w.Secrets, secret)
			switch (i + k) % 3 {
			case 0:
				w.Kill()
				w.StartDaemon()
			case 1:
				w.Stop()
				w.StartDaemon()
			case 2:
				w.RunCommand("diff")
			}
			if i == 0 && k == 0 {
				w.Signal(syscall.SIGUSR1) // by a person, who may have it tried once more
			}
			w.Is("prod", "degraded/login_refused", "lock the role for every host")
			stale += logins(w)
		}
		all(version, secret)
	}
	if stale > 1 {
		t.Errorf("%d logins with stale secret-ids after each was refused once, want the one that was asked for", stale)
	}

	for _, w := range three { // and they are picked up as soon as they have a right one
		right, err := w.Vault.SecretID(w.Ctx, w.RoleID)
		w.Must(err)
		w.Secrets = append(w.Secrets, right)
		w.Must(os.WriteFile(w.SecretID, []byte(right+"\n"), 0o600))
	}
	for _, w := range three {
		w.InSync(version)
		w.Holds("prod", secret)
	}
}
