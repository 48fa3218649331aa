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

const (
	// endAgain is the least time between two warnings of the end of the same secret-id, or token.
	endAgain = 24 * time.Hour
	// endTimeout bounds the question for the end, as polls wait for the connection.
	endTimeout = 3 * time.Second
)

// secretIDEnd warns, once a day, before the secret-id ends that the last login was made with. Vault is asked beside the work,
// after a login; nothing depends on its answer. Safe for concurrent use.
type secretIDEnd struct {
	connection *connection.Connection
	auth       config.Auth
	logger     *slog.Logger

	asking sync.WaitGroup
	ctx    context.Context // ends with close
	stop   context.CancelFunc

	mu    sync.Mutex
	of    credential.Secret // the secret-id that end is of
	end   time.Time         // zero: never, or not known
	alarm *time.Timer       // nil as well then
}

func newSecretIDEnd(config Config) *secretIDEnd {
	e := &secretIDEnd{connection: config.Connection, auth: config.Auth, logger: config.Logger}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// look asks for the end of the secret-id that token was got with. role is what Vault calls the role. It does not wait for
// the answer.
func (e *secretIDEnd) look(token, secretID credential.Secret, role string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if connection.CheckPath(role) != nil || strings.Contains(role, "/") || e.ctx.Err() != nil {
		return
	}
	if secretID.Reveal() != e.of.Reveal() {
		e.of = secretID
		e.warnAt(time.Time{}) // the end of another
	}
	e.asking.Go(func() {
		end, ok := e.ask(token, secretID, role)
		e.mu.Lock()
		defer e.mu.Unlock()
		if ok && secretID.Reveal() == e.of.Reveal() {
			e.warnAt(end)
		}
	})
}

// ask reports false where Vault does not tell.
func (e *secretIDEnd) ask(token, secretID credential.Secret, role string) (end time.Time, ok bool) {
	var answer struct {
		Data struct {
			End time.Time `json:"expiration_time"` // zero: never
		} `json:"data"`
	}
	ctx, cancel := context.WithTimeout(e.ctx, endTimeout)
	defer cancel()
	_, err := e.connection.Do(ctx, connection.Request{
		Step: "look up the secret-id", Path: "auth/" + e.auth.Mount + "/role/" + role + "/secret-id/lookup",
		Body:      map[string]string{"secret_id": secretID.Reveal()},
		Namespace: e.auth.Namespace, Token: token, Hide: []credential.Secret{secretID},
	}, &answer)
	if err != nil {
		e.logger.Debug("the secret-id's end is not known", "reason", err.Error())
	}
	return answer.Data.End, err == nil
}

// warnAt has the log warn from e.auth.SecretIDWarn before end on; never where end is zero. The caller has mu.
func (e *secretIDEnd) warnAt(end time.Time) {
	if end.Equal(e.end) {
		return // known already
	}
	if e.alarm != nil {
		e.alarm.Stop()
	}
	if e.end, e.alarm = end, nil; end.IsZero() {
		return
	}
	var alarm *time.Timer
	alarm = time.AfterFunc(max(0, time.Until(end.Add(-e.auth.SecretIDWarn))), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.alarm != alarm || e.ctx.Err() != nil {
			return
		}
		e.logger.Warn("the secret-id ends soon; put a new one there before, as no login works after", "file", e.auth.SecretIDFile,
			"expires", end.UTC().Format(time.RFC3339))
		alarm.Reset(endAgain)
	})
	e.alarm = alarm
}

// close ends what is under way, and waits for it.
func (e *secretIDEnd) close() {
	e.mu.Lock()
	e.stop()
	e.warnAt(time.Time{})
	e.mu.Unlock()
	e.asking.Wait()
}
