package nlserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"campaign-credsync/internal/credential"
)

// The activation service runs steps of activation outside of the daemon's control group and sandbox, in which a module would stay that
// nlserver forks. A connection is one step: the daemon sends a request, a line of JSON. The service answers one when nlserver runs or
// when it refuses, and one when nlserver has ended. The connection stays open until then. No secret goes over it.

// request asks for a step.
type request struct {
	Step credential.Step `json:"step"`
}

// answer is what the service answers.
type answer struct {
	Refused  string `json:"refused,omitempty"`   // why nothing was run
	Begun    bool   `json:"begun,omitempty"`     // nlserver runs
	Ended    string `json:"ended,omitempty"`     // how it did not end well: "exit status 3"
	Status   int    `json:"status,omitempty"`    // with which it ended then; -1: none
	TimedOut bool   `json:"timed_out,omitempty"` // it was stopped for that
	Output   string `json:"output,omitempty"`    // the end of what it printed, where that is read
}

// endedBadly is how a run of the service's did not end well.
type endedBadly struct {
	text   string
	status int
}

func (e endedBadly) Error() string { return e.text }

// ExitCode is the exit status, or -1.
func (e endedBadly) ExitCode() int { return e.status }

func (a answer) err() error {
	switch {
	case a.Ended == "":
		return nil
	case a.TimedOut:
		return fmt.Errorf("%s: %w", a.Ended, context.DeadlineExceeded)
	}
	return endedBadly{a.Ended, a.Status}
}

// isOutside reports whether the activation service is asked.
func (b *Binary) isOutside() bool {
	if b.cfg.Via != ViaAuto {
		return b.cfg.Via == ViaSocket
	}
	_, err := os.Lstat(b.cfg.Socket)
	return err == nil
}

const (
	askTimeout   = 5 * time.Second // to connect and to be heard
	answerGrace  = 5 * time.Second // for the start of the service, beside what it runs
	maxAnswers   = 1 << 20         // bytes
	socketRemedy = "systemctl enable --now campaign-credsync-activate.socket, or set campaign.activate.via to direct"
	lookAtUnits  = "see journalctl -u 'campaign-credsync-activate@*'"
)

// talk is a connection to the activation service.
type talk struct {
	net.Conn
	answers *json.Decoder
}

// ask asks the activation service for a step. When ctx ends the connection is closed.
func (b *Binary) ask(ctx context.Context, step credential.Step) (*talk, error) {
	dialer := net.Dialer{Timeout: askTimeout}
	conn, err := dialer.DialContext(ctx, "unix", b.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("activation socket: %w (%s)", err, socketRemedy)
	}
	line, _ := json.Marshal(request{step}) // of a string, which never fails
	_ = conn.SetDeadline(time.Now().Add(askTimeout))
	if _, err := conn.Write(append(line, '\n')); err != nil {
		conn.Close()
		return nil, fmt.Errorf("activation socket %s: %w (%s)", b.cfg.Socket, err, lookAtUnits)
	}
	return &talk{conn, json.NewDecoder(io.LimitReader(conn, maxAnswers))}, nil
}

// next waits for an answer, for ever if limit is 0.
func (t *talk) next(limit time.Duration) (a answer, err error) {
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	_ = t.SetDeadline(until)
	switch err = t.answers.Decode(&a); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("the activation service has not answered within %s (%s): %w", limit, lookAtUnits, context.DeadlineExceeded)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("the activation service ended without an answer (%s)", lookAtUnits)
	case err != nil:
		err = fmt.Errorf("the answer of the activation service: %w", err)
	case a.Refused != "":
		err = errors.New("the activation service refuses: " + credential.Escape(credential.Redact(a.Refused)))
	}
	return a, err
}

// begun waits until nlserver runs; before, the service runs the environment script, which has a limit of its own.
func (b *Binary) begun(t *talk) error {
	_, err := t.next(b.cfg.Timeout + 3*stopGrace + answerGrace)
	return err
}

// reloadOutside has the activation service reload.
func (b *Binary) reloadOutside(ctx context.Context) error {
	limit := b.cfg.Timeout + 3*stopGrace + answerGrace
	defer countCommand(2 * limit)()
	begun, cut := withGrace(ctx)
	defer cut()
	t, err := b.ask(begun, credential.Step{Kind: credential.StepReload})
	if err != nil {
		return err
	}
	defer t.Close()
	defer context.AfterFunc(begun, func() { t.Close() })()
	if err = b.begun(t); err == nil {
		var a answer
		if a, err = t.next(limit); err == nil {
			return b.explain(nameReload, a.Output, a.err())
		}
	}
	if begun.Err() != nil {
		err = context.Cause(begun)
	}
	return fmt.Errorf("%s: %w", nameReload, err)
}

// beginOutside has the activation service begin a restart. The connection stays open as long as that lasts.
func (b *Binary) beginOutside(_ context.Context, module string) (*restart, error) {
	defer countCommand(b.cfg.Timeout + 3*stopGrace + answerGrace)()
	last := b.last(module)
	if last != nil && last.forgiven.Load() {
		b.forgiveNote(module) // from which the service counts on
	}
	// Once asked for, it cannot be called off: so it is waited for.
	t, err := b.ask(context.Background(), credential.Step{Kind: credential.StepRestart, Module: module})
	if err == nil {
		if err = b.begun(t); err != nil {
			t.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("nlserver restart %s: %w", module, err)
	}
	r := &restart{began: time.Now(), before: last.failures().Count, ended: make(chan struct{})}
	go func() { // ends with the restart, or the service, which may be after this process
		defer close(r.ended)
		defer t.Close()
		a, err := t.next(0)
		if err == nil {
			err = a.err()
		}
		r.end(a.Output, err)
	}()
	return r, nil
}
