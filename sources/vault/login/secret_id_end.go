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

	ctx    context.Context // ends with close
	stop   context.CancelFunc
	asking sync.WaitGroup

	mu    sync.Mutex
	end   time.Time   // as Vault said last; zero: never, or not known
	alarm *time.Timer // warns of it
}

func newSecretIDEnd(m *Method) *secretIDEnd {
	e := &secretIDEnd{connection: m.connection, auth: m.auth, logger: m.logger, alarm: time.NewTimer(0)}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// watch asks for the end of the secret-id that token was got with, and warns when that is near. role is what Vault calls the
// role. It does not wait for the answer.
func (e *secretIDEnd) watch(token, secretID credential.Secret, role string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if connection.CheckPath(role) != nil || strings.Contains(role, "/") || e.ctx.Err() != nil {
		return
	}
	e.asking.Go(func() {
		end, err := e.ask(token, secretID, role)
		e.mu.Lock()
		defer e.mu.Unlock()
		if err != nil {
			e.logger.Debug("the secret-id's end is not known", "reason", err.Error())
			return
		}
		if end.Equal(e.end) {
			return
		}
		e.end = end
		e.alarm.Stop()
		if !end.IsZero() {
			e.alarm = time.AfterFunc(time.Until(end.Add(-e.auth.SecretIDWarn)), func() {
				e.logger.Warn("the secret-id ends soon; put a new one there before, as no login works after", "file", e.auth.SecretIDFile,
					"expires", end.UTC().Format(time.RFC3339))
			})
		}
	})
}

func (e *secretIDEnd) ask(token, secretID credential.Secret, role string) (end time.Time, err error) {
	var answer struct {
		Data struct {
			End time.Time `json:"expiration_time"` // zero: never
		} `json:"data"`
	}
	ctx, cancel := context.WithTimeout(e.ctx, endTimeout)
	defer cancel()
	_, err = e.connection.Do(ctx, connection.Request{
		Step: "look up the secret-id", Path: "auth/" + e.auth.Mount + "/role/" + role + "/secret-id/lookup",
		Body:      map[string]string{"secret_id": secretID.Reveal()},
		Namespace: e.auth.Namespace, Token: token, Hide: []credential.Secret{secretID},
	}, &answer)
	return answer.Data.End, err
}

// close ends what is under way, and waits for it.
func (e *secretIDEnd) close() {
	e.mu.Lock()
	e.stop()
	e.mu.Unlock()
	e.asking.Wait()
	e.alarm.Stop()
}
