package vault_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/vaulttest"
)

// onLogin is a log that calls the function at each login.
type onLogin func()

func (onLogin) Enabled(context.Context, slog.Level) bool { return true }
func (o onLogin) WithAttrs([]slog.Attr) slog.Handler     { return o }
func (o onLogin) WithGroup(string) slog.Handler          { return o }
func (o onLogin) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "logged in to vault" {
		o()
	}
	return nil
}

// The token in use is revoked also while a login hangs on a disk.
func TestCloseBesideALoginThatHangs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	first := make(chan struct{}, 1)
	first <- struct{}{}
	hangs, over := make(chan struct{}), make(chan struct{})
	l.Config.Logger = slog.New(onLogin(func() {
		select {
		case <-first:
		default:
			close(hangs)
			<-over
		}
	}))
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, never)
	l.WriteSecretID(l.Server.MustSecretID(l.RoleID))
	v.ResetBackoff()
	polls, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for polls.Err() == nil {
			kv.Poll(polls, never)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	select {
	case <-hangs: // as there is another secret-id
	case <-time.After(vaulttest.Patience):
		t.Fatalf("no second login in %v", vaulttest.Patience)
	}
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := v.Close(ctx); err != nil {
		t.Error(err)
	}
	if n := vaulttest.Count(l.Proxy.Requests(), func(r vaulttest.Request) bool {
		return r.Method == http.MethodPut && strings.HasSuffix(r.Path, "/revoke-self")
	}); n != 1 {
		t.Errorf("revoked %d times", n)
	}
	close(over)
	<-ended
}
