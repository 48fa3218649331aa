package sources

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
)

// endAgain is the least time between two looks at, and two warnings of, the end of the same secret-id.
const endAgain = 24 * time.Hour

// secretIDEnd warns before the secret-id ends that the last login was made with. Vault is asked beside the work, after a
// login, once a day; nothing depends on its answer. Safe for concurrent use.
type secretIDEnd struct {
	vault  *Vault
	client *api.Client // in the namespace of the login, without a token; holds up no poll
	before time.Duration
	mount  string
	file   string

	asking sync.WaitGroup
	stop   context.CancelFunc // ends a question that is under way
	ctx    context.Context

	mu     sync.Mutex
	key    string    // the secret-id that the rest is about
	asked  time.Time // zero: not, or in vain
	end    time.Time // zero: never, or not known
	warned time.Time
}

func newSecretIDEnd(v *Vault, auth Auth, client *api.Client) *secretIDEnd {
	e := &secretIDEnd{vault: v, client: client, before: auth.SecretIDWarn, mount: auth.Mount, file: auth.SecretIDFile}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// look asks for the end of the secret-id that t was got with, unless that was done within a day. role is what Vault calls
// the role. It does not wait for the answer.
func (e *secretIDEnd) look(t *token, key string, secretID credential.Secret, role string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.key != key {
		e.key, e.asked, e.end, e.warned = key, time.Time{}, time.Time{}, time.Time{}
	}
	if time.Since(e.asked) < endAgain || checkPath(role) != nil || strings.Contains(role, "/") || e.ctx.Err() != nil {
		return
	}
	e.asked = time.Now()
	e.asking.Go(func() {
		end, ok := e.ask(t, secretID, role)
		e.mu.Lock()
		defer e.mu.Unlock()
		switch {
		case e.key != key:
		case ok:
			e.end = end
			e.warn(time.Now())
		default:
			e.asked = time.Time{} // the next token may be allowed to
		}
	})
}

// ask reports false where Vault does not tell.
func (e *secretIDEnd) ask(t *token, secretID credential.Secret, role string) (end time.Time, ok bool) {
	bounded, cancel := context.WithTimeout(e.ctx, requestTimeout)
	defer cancel()
	path := "auth/" + e.mount + "/role/" + role + "/secret-id/lookup"
	answer, err := withToken(e.client, t.text).Logical().WriteWithContext(bounded, path,
		map[string]any{"secret_id": secretID.Reveal()})
	switch {
	case err != nil:
		err = e.vault.explain(e.ctx, "look up the secret-id", err, t.text, secretID)
		if !hasStatus(err, http.StatusForbidden) || e.ctx.Err() != nil {
			e.vault.logger.Debug("the secret-id's end is not known", "reason", err.Error())
			return end, false
		}
		e.vault.logger.Debug("the policy does not let us look up when the secret-id ends", "path", path)
		return end, false
	case answer == nil:
		e.vault.logger.Debug("the secret-id's end is not known", "reason", "vault does not find it")
		return end, false
	}
	text, _ := answer.Data["expiration_time"].(string)
	end, err = time.Parse(time.RFC3339, text)
	return end, err == nil // one that never ends has the zero time
}

// remind warns again of a secret-id that is about to end, once a day.
func (e *secretIDEnd) remind(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.warn(now)
}

func (e *secretIDEnd) warn(now time.Time) {
	if e.end.IsZero() || e.end.Sub(now) > e.before || now.Sub(e.warned) < endAgain {
		return
	}
	e.warned = now
	e.vault.logger.Warn("the secret-id ends soon; put a new one there before, as no login works after", "file", e.file,
		"expires", e.end.UTC().Format(time.RFC3339))
}

// close ends what is under way, and waits for it.
func (e *secretIDEnd) close() {
	e.mu.Lock()
	e.stop()
	e.mu.Unlock()
	e.asking.Wait()
}
