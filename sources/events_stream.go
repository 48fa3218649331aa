package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"
)

const (
	// eventTypes are those of whatever writes a secret's data: data-write, data-patch. Of data-delete only the root token
	// hears; the next poll finds it, and there is nothing to apply.
	eventTypes = "kv-v2/data-*"
	eventsPath = "sys/events/subscribe/" + eventTypes
	// maxEvent bounds one event, in bytes. They have about 700.
	maxEvent = 64 << 10
	// maxFilter bounds the query, in bytes: what is before Vault may not let longer ones through.
	maxFilter = 4 << 10
)

// dial makes the connection. Its errors are errFewUses, errNotOffered, errNotAllowed, or say what failed.
func (s *subscriber) dial(ctx context.Context, t *token) (*websocket.Conn, error) {
	if t.uses != nil { // it ends, and the subscription with it, when polls have used it up
		return nil, errFewUses
	}
	bounded, cancel := context.WithTimeout(ctx, s.times.dial)
	defer cancel()
	header := http.Header{"X-Vault-Request": {"true"}, "X-Vault-Token": {t.text.Reveal()}}
	if namespace := s.vault.reads.Namespace(); namespace != "" {
		header.Set("X-Vault-Namespace", namespace)
	}
	query := url.Values{"json": {"true"}}
	filter := s.filter()
	if filter != "" {
		query.Set("filter", filter)
	}
	conn, response, err := websocket.Dial(bounded, s.vault.address+"/v1/"+eventsPath+"?"+query.Encode(),
		&websocket.DialOptions{HTTPClient: s.client, HTTPHeader: header})
	if err == nil {
		conn.SetReadLimit(maxEvent)
		return conn, nil
	}
	const step = "subscribe to " + eventsPath
	foreign, _ := errors.AsType[*foreignError](err)
	if filter != "" && (foreign != nil && foreign.status == http.StatusBadRequest || response != nil && response.StatusCode == http.StatusBadRequest) {
		s.filtered = false // it may be the filter
		return s.dial(ctx, t)
	}
	if response == nil || response.StatusCode == http.StatusSwitchingProtocols {
		return nil, s.vault.explain(ctx, step, err, s.vault.session.hide(t.text)...)
	}
	switch status := response.StatusCode; status {
	case http.StatusForbidden:
		return nil, errNotAllowed
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return nil, fmt.Errorf("%w (it answers %d)", errNotOffered, status)
	}
	return nil, s.vault.explain(ctx, step, answered(response), s.vault.session.hide(t.text)...)
}

// answered is the error that vault/api would make of a response.
func answered(response *http.Response) error {
	answer := &api.ResponseError{StatusCode: response.StatusCode}
	var body struct{ Errors []string }
	if content, err := io.ReadAll(response.Body); err == nil && json.Unmarshal(content, &body) == nil {
		answer.Errors = body.Errors
	}
	return answer
}

// filter is an expression of go-bexpr that lets only events of our secrets through. Empty: every event comes here, and is
// looked at here, which it is in any case.
func (s *subscriber) filter() string {
	if !s.filtered {
		return ""
	}
	var terms []string
	for _, p := range s.secrets {
		if strings.ContainsAny(p.path, "`\r") {
			return "" // cannot be quoted
		}
		terms = append(terms, "data_path == `"+p.path+"`")
	}
	filter := strings.Join(terms, " or ")
	if len(filter) > maxFilter {
		return ""
	}
	return filter
}

// follow takes events from conn until it fails, the session has another token or ctx is done, and closes it.
func (s *subscriber) follow(ctx context.Context, conn *websocket.Conn, t *token) error {
	defer conn.CloseNow()
	hits := make(chan *pushed)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.read(ctx, conn, hits) })
	group.Go(func() error { return s.keepAlive(ctx, conn) })
	group.Go(func() error { return s.announce(ctx, hits) })
	group.Go(func() error {
		if _, err := s.vault.proof.await(ctx, func(e evidence) bool { return e.token != t }); err != nil {
			return err
		}
		return errRenewed
	})
	return group.Wait()
}

func (s *subscriber) read(ctx context.Context, conn *websocket.Conn, hits chan<- *pushed) error {
	for {
		_, content, err := conn.Read(ctx)
		if err != nil {
			return lost(err)
		}
		p := s.meant(content)
		if p == nil {
			continue
		}
		select {
		case hits <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lost says why a connection ended, without the words of the other side.
func lost(err error) error {
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		return fmt.Errorf("vault closed the subscription (%d)", closed.Code)
	}
	what, _ := networkMeans(err)
	return fmt.Errorf("the subscription was lost: %s", what)
}

// meant returns the secret that an event is about, nil when it is none of ours, or the message is no event.
func (s *subscriber) meant(content []byte) *pushed {
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
		s.vault.logger.Debug("a message of vault is no event", "bytes", len(content))
		return nil
	}
	metadata := message.Data.Event.Metadata
	for _, p := range s.secrets {
		if p.path == metadata.DataPath || p.path == metadata.Path {
			return p
		}
	}
	s.vault.logger.Debug("an event of vault is about another secret")
	return nil
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
			return lost(err)
		}
	}
}

// announce has secrets polled that events told of: a random moment later, as many daemons hear of it at the same time,
// and not for each event of a burst.
func (s *subscriber) announce(ctx context.Context, hits <-chan *pushed) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case p := <-hits:
			if p.due.IsZero() {
				p.due = time.Now().Add(p.pace.Reserve().Delay() + rand.N(s.times.spread))
			}
		case <-timer.C:
		case <-ctx.Done():
			for _, p := range s.secrets {
				if !p.due.IsZero() {
					p.announce()
				}
			}
			return ctx.Err()
		}
		now := time.Now()
		next := now.Add(time.Hour)
		for _, p := range s.secrets {
			switch {
			case p.due.IsZero():
			case p.due.After(now):
				next = earliest(next, p.due)
			default:
				p.announce()
			}
		}
		timer.Reset(next.Sub(now))
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
