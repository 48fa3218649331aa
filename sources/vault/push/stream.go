package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"campaign-credsync/sources/vault/login"
)

const (
	// eventTypes are those of whatever writes a secret's data: data-write, data-patch. Of data-delete only the root token
	// hears; the next poll finds it, and there is nothing to apply.
	eventTypes = "kv-v2/data-*"
	eventsPath = "sys/events/subscribe/" + eventTypes
	step       = "subscribe to " + eventsPath
	// maxEvent bounds one event, in bytes. They have about 700.
	maxEvent = 64 << 10
)

// stream makes a connection and takes events from it until it fails, polls have another token or ctx is done.
func (s *subscriber) stream(ctx context.Context, t *login.Token) error {
	conn, err := s.dial(ctx, t)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	s.connected(ctx, t)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			_, content, err := conn.Read(ctx)
			if err != nil {
				return s.lost(ctx, err)
			}
			if p := s.meant(content); p != nil && p.due.CompareAndSwap(false, true) {
				group.Go(func() error { p.announce(ctx); return nil })
			}
		}
	})
	group.Go(func() error { return s.keepAlive(ctx, conn) })
	group.Go(func() error {
		if _, err := s.Health.await(ctx, func(p pollHealth) bool { return p.token != t }); err != nil {
			return err
		}
		return errRenewed
	})
	return group.Wait()
}

// dial makes the connection. Its errors are errFewUses, errNotOffered, errNotAllowed, or say what failed.
func (s *subscriber) dial(ctx context.Context, t *login.Token) (*websocket.Conn, error) {
	if t.FewUses() { // it ends, and the subscription with it, when polls have used it up
		return nil, errFewUses
	}
	if err := s.Connection.Throttled(); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.times.dial)
	defer cancel()
	header := http.Header{"X-Vault-Request": {"true"}, "X-Vault-Token": {t.Text.Reveal()}}
	if s.Namespace != "" {
		header.Set("X-Vault-Namespace", s.Namespace)
	}
	conn, response, err := websocket.Dial(bounded, s.Connection.Address()+"/v1/"+eventsPath+"?json=true",
		&websocket.DialOptions{HTTPClient: s.client, HTTPHeader: header})
	switch {
	case err == nil:
		conn.SetReadLimit(maxEvent)
		return conn, nil
	case response == nil || response.StatusCode == http.StatusSwitchingProtocols:
		return nil, s.Connection.Explain(ctx, step, err, t.Text)
	}
	switch status := response.StatusCode; status {
	case http.StatusForbidden:
		return nil, errNotAllowed
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return nil, fmt.Errorf("%w (it answers %d)", errNotOffered, status)
	default:
		return nil, fmt.Errorf("vault at %s: %s: it answers %d", s.Connection.Address(), step, status)
	}
}

// lost says why a connection ended, without the words of the other side.
func (s *subscriber) lost(ctx context.Context, err error) error {
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		return fmt.Errorf("vault closed the subscription (%d)", closed.Code)
	}
	return s.Connection.Explain(ctx, "the subscription was lost", err)
}

// keepAlive finds out that the other side is gone where no packet tells of it.
func (s *subscriber) keepAlive(ctx context.Context, conn *websocket.Conn) error {
	for {
		if err := sleep(ctx, s.times.ping); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, s.times.pong)
		err := conn.Ping(limited)
		cancel()
		if err != nil {
			return s.lost(ctx, err)
		}
	}
}

// meant returns the secret that an event is about, nil when it is none of ours, or the message is no event.
func (s *subscriber) meant(content []byte) *secret {
	var message struct {
		Data struct {
			Event struct {
				Metadata struct {
					DataPath string `json:"data_path"`
					Path     string `json:"path"`
				} `json:"metadata"`
			} `json:"event"`
		} `json:"data"`
	}
	if err := json.Unmarshal(content, &message); err != nil {
		s.Logger.Debug("a message of vault is no event", "bytes", len(content))
		return nil
	}
	metadata := message.Data.Event.Metadata
	for _, p := range s.secrets {
		if p.path == metadata.DataPath || p.path == metadata.Path {
			return p
		}
	}
	return nil
}

// announce calls changed a little later, and not for each event of a burst; at once when ctx ends.
func (p *secret) announce(ctx context.Context) {
	sleep(ctx, p.pace.Reserve().Delay()+rand.N(spread))
	p.due.Store(false)
	p.changed()
}
