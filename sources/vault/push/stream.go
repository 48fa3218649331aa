package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"campaign-credsync/internal/credential"
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
	s.pollAll() // no event tells of what was written before
	s.log(slog.LevelInfo, "subscribed to vault events", "secrets", len(s.secrets))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			_, content, err := conn.Read(ctx)
			if err != nil {
				return s.lost(ctx, err)
			}
			if p := s.secretOf(content); p != nil && p.waiting.CompareAndSwap(false, true) {
				group.Go(func() error { p.pollSoon(ctx); return nil })
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

// dial makes the connection. Its errors wrap errRefused, or say what failed.
func (s *subscriber) dial(ctx context.Context, t *login.Token) (*websocket.Conn, error) {
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
		return nil, fmt.Errorf("%w: permission denied, as by every Vault but Enterprise; %s", errRefused, s.remedy())
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return nil, fmt.Errorf("%w: it answers %d", errRefused, status)
	default:
		return nil, fmt.Errorf("vault at %s: %s: it answers %d", s.Connection.Address(), step, status)
	}
}

// remedy is what to add to the policy, or else to the configuration.
func (s *subscriber) remedy() string {
	rules := []string{`path "` + eventsPath + `" { capabilities = ["read"] }`}
	for _, p := range s.secrets {
		rules = append(rules, fmt.Sprintf(`path "%s" { capabilities = ["read", "subscribe"] subscribe_event_types = ["%s"] }`,
			credential.Escape(p.path), eventTypes))
	}
	return "add to the policy: " + strings.Join(rules, " ") + `, or set watch.events to "off"`
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

// secretOf returns the secret that an event is about, nil when it is none of ours, or the message is no event.
func (s *subscriber) secretOf(content []byte) *secret {
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
	if json.Unmarshal(content, &message) != nil {
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

// pollSoon has the secret polled a little later, at once when ctx ends. No event is lost: one that comes while it waits is older
// than the poll.
func (p *secret) pollSoon(ctx context.Context) {
	sleep(ctx, time.Until(p.polled.Add(pace))+rand.N(spread))
	p.polled = time.Now()
	p.waiting.Store(false)
	p.changed()
}
