package world

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"campaign-credsync/test/vaulttest"
)

// Tokens counts the live tokens that the daemon's role has. Those of other tests may end while they are listed, which
// fails the listing.
func (w *World) Tokens() (n int) {
	w.T.Helper()
	w.Succeeds("Vault lists the tokens", func() error {
		accessors, err := w.Vault.RoleTokens(w.Ctx, w.RoleID)
		n = len(accessors)
		return err
	})
	return n
}

// Settled waits until a daemon that has just started has only its usual polls to do. Whether Vault pushes is known by then; what
// it had polled once for that, and once at a random moment after it, is over.
func (w *World) Settled(paths ...string) {
	w.T.Helper()
	w.Eventually("the daemon knows whether vault pushes", func() bool {
		log := w.Running.Log()
		return strings.Contains(log, "vault offers no events") || strings.Contains(log, "subscribed to vault events")
	})
	w.Proxy.Requests()
	w.awaitPolls(paths)
}

func (w *World) awaitPolls(paths []string) {
	w.T.Helper()
	const polls = 3
	for _, path := range paths {
		w.Must(w.Proxy.Await(w.Ctx, polls, func(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, path) }))
	}
}

// Idle demands of the next polls that each is one light read of each secret, and nothing else. Whether Vault pushes may still be
// asked, once.
func (w *World) Idle(paths ...string) {
	w.T.Helper()
	w.Settled(paths...)
	w.Proxy.Requests()
	w.awaitPolls(paths)
	seen := map[string][]time.Time{}
	push := map[string]int{}
	for _, r := range w.Proxy.Requests() {
		if strings.HasPrefix(r.Path, "/v1/sys/events/subscribe/") || r.Path == "/v1/sys/health" {
			if push[r.Path]++; push[r.Path] > 1 {
				w.T.Errorf("idle, and yet %s %s again", r.Method, r.Path)
			}
			continue
		}
		path, light := strings.CutPrefix(r.Path, "/v1/"+w.Vault.Mount+"/metadata/")
		if r.Method != http.MethodGet || !light {
			w.T.Errorf("idle, and yet %s %s", r.Method, r.Path)
		}
		seen[path] = append(seen[path], r.Time)
	}
	for path, times := range seen {
		for i := range len(times) - 1 {
			if gap := times[i+1].Sub(times[i]); gap < 500*time.Millisecond {
				w.T.Errorf("%s was polled again after %v", path, gap)
			}
		}
	}
}

// Logins demands a number of logins since the last call of Requests, which it leaves as they are.
func (w *World) Logins(want int) {
	w.T.Helper()
	got := w.loggedIn + vaulttest.Count(w.Proxy.Requests(), vaulttest.Request.Login)
	if got != want {
		w.T.Errorf("%d logins, want %d\n%s", got, want, w.Log())
	}
	w.loggedIn = got
}

// Metadata is what Vault answers now about an instance's secret.
func (w *World) Metadata(instance string) string { return w.answer("/metadata/", instance) }

// Data is the same of the secret itself.
func (w *World) Data(instance string) string { return w.answer("/data/", instance) }

func (w *World) answer(kind, instance string) string {
	w.T.Helper()
	var answer json.RawMessage
	w.Must(w.Vault.Call(w.Ctx, http.MethodGet, w.Vault.Mount+kind+w.SecretPath(instance), nil, &answer))
	return string(answer)
}

// MountTokens counts the live tokens of logins at a mount, as Tokens does.
func (w *World) MountTokens(mount string) (n int) {
	w.T.Helper()
	w.Eventually("Vault lists the tokens", func() bool {
		accessors, err := w.Vault.MountTokens(w.Ctx, mount)
		n = len(accessors)
		return err == nil
	})
	return n
}
