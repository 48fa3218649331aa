package nlserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

const (
	maxRequest    = 512 // bytes
	readTimeout   = 5 * time.Second
	answerTimeout = 5 * time.Second
	maxOutput     = 64 << 10 // bytes of it in an answer
)

// ReadRequest reads which step is asked for: one line, within maxRequest and readTimeout.
func ReadRequest(conn net.Conn) (step credential.Step, err error) {
	_ = conn.SetReadDeadline(time.Now().Add(readTimeout))
	line, err := bufio.NewReaderSize(conn, maxRequest).ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return step, fmt.Errorf("the request is longer than %d bytes", maxRequest)
	case err != nil:
		return step, fmt.Errorf("read the request, a line of JSON: %w", err)
	}
	var r request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return step, fmt.Errorf("the request is not what it should be: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return step, errors.New("something follows the request")
	}
	return r.Step, nil
}

// Refuse answers that nothing was run.
func Refuse(conn net.Conn, why error) { send(conn, answer{Refused: why.Error()}) }

func send(conn net.Conn, a answer) {
	line, _ := json.Marshal(a) // of strings and numbers, which never fails
	_ = conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, _ = conn.Write(append(line, '\n')) // the daemon may have ended; the next one asks again
}

// Serve takes a step for a daemon at the other end of conn, if it is one of the configured ones, and tells how it ended. The error says
// why nothing was run; the daemon was told. A restart is waited for as long as it lasts, unless ctx ends: then it is left to run.
func (b *Binary) Serve(ctx context.Context, conn net.Conn, step credential.Step, configured []credential.Step) error {
	err := b.serve(ctx, conn, step, configured)
	if err != nil {
		Refuse(conn, err)
	}
	return err
}

func (b *Binary) serve(ctx context.Context, conn net.Conn, step credential.Step, configured []credential.Step) error {
	if !slices.Contains(configured, step) {
		return fmt.Errorf("%q is no step of the configuration (campaign.activate and instances)", credential.Cut(credential.Escape(step.String()), 60))
	}
	if step.Kind == credential.StepReload {
		env, err := b.environment(ctx)
		if err != nil {
			return err
		}
		send(conn, answer{Begun: true})
		printed, err := b.reloadHere(ctx, env)
		send(conn, ending(printed, err))
		return nil
	}
	r, err := b.beginHere(ctx, step.Module)
	if err != nil {
		return err
	}
	send(conn, answer{Begun: true})
	select {
	case <-r.ended:
		send(conn, ending(r.said, r.exit))
	case <-ctx.Done():
	}
	return nil
}

// ending is the answer about a run that has ended.
func ending(printed string, err error) answer {
	if len(printed) > maxOutput { // not from within a word, which could be half of a secret
		_, printed, _ = strings.Cut(printed[len(printed)-maxOutput:], "\n")
	}
	a := answer{Output: printed}
	if err != nil {
		a.Ended, a.Status, a.TimedOut = err.Error(), exitStatus(err), errors.Is(err, context.DeadlineExceeded)
	}
	return a
}
