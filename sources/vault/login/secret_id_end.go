package login

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

// endTimeout bounds the question for the end, as polls wait for the connection.
const endTimeout = 3 * time.Second

// secretIDEnd warns before the secret-id ends that the last login was made with. Vault is asked beside the work, after a
// login; nothing depends on its answer. Safe for concurrent use.
type secretIDEnd struct {
	connection *connection.Connection
	auth       config.Auth
	logger     *slog.Logger

	mu      sync.Mutex
	closed  bool
	stop    context.CancelFunc // ends what the last login began
	running sync.WaitGroup     // that; owns what follows
	of      credential.Secret  // the secret-id that end is of
	end     time.Time          // zero: never, or not known
	warned  time.Time          // the end that was warned of
}

func newSecretIDEnd(config Config) *secretIDEnd {
	return &secretIDEnd{connection: config.Connection, auth: config.Auth, logger: config.Logger, stop: func() {}}
}

// watch asks for the end of the secret-id that token was got with, and warns when that is near. role is what Vault calls the
// role. It does not wait for the answer.
func (e *secretIDEnd) watch(token, secretID credential.Secret, role string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
	e.running.Wait()
	if connection.CheckPath(role) != nil || strings.Contains(role, "/") || e.closed {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.running.Go(func() {
		if secretID.Reveal() != e.of.Reveal() {
			e.of, e.end = secretID, time.Time{}
		}
		if e.ask(ctx, token, secretID, role); e.end.IsZero() || e.end.Equal(e.warned) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(e.end.Add(-e.auth.SecretIDWarn))):
			e.warned = e.end
			e.logger.Warn("the secret-id ends soon; put a new one there before, as no login works after", "file", e.auth.SecretIDFile,
				"expires", e.end.UTC().Format(time.RFC3339))
		}
	})
}

// ask leaves the end as it is known where Vault does not tell.
func (e *secretIDEnd) ask(ctx context.Context, token, secretID credential.Secret, role string) {
	var answer struct {
		Data struct {
			End time.Time `json:"expiration_time"` // zero: never
		} `json:"data"`
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	_, err := e.connection.Do(ctx, connection.Request{
		Step: "look up the secret-id", Path: "auth/" + e.auth.Mount + "/role/" + role + "/secret-id/lookup",
		Body:      map[string]string{"secret_id": secretID.Reveal()},
		Namespace: e.auth.Namespace, Token: token, Hide: []credential.Secret{secretID},
	}, &answer)
	if err != nil {
		e.logger.Debug("the secret-id's end is not known", "reason", err.Error())
		return
	}
	e.end = answer.Data.End
}

// close ends what is under way, and waits for it.
func (e *secretIDEnd) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.stop()
	e.running.Wait()
}
