package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoDaemon says that nobody answers at the control socket, ErrNoAnswer that somebody listens there and does not answer.
var (
	ErrNoDaemon = errors.New("no daemon answers")
	ErrNoAnswer = errors.New("the daemon does not answer")
)

// answerTimeout is how long an answer about the status may take.
const answerTimeout = 10 * time.Second

// AskStatus asks the daemon behind the socket for its status.
func AskStatus(ctx context.Context, socket string) (Status, error) {
	limited, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("%w: nothing came from control_socket %s in %v",
		ErrNoAnswer, socket, answerTimeout))
	defer cancel()
	return ask(limited, socket, http.MethodGet, "/status")
}

// AskSync has the daemon do a pass over an instance, or over all of them where it is empty. That takes as long as nlserver does,
// so it is waited for until the daemon has not told its status for answerTimeout.
func AskSync(ctx context.Context, socket, instance string) (Status, error) {
	waiting, giveUp := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for answered := time.Now(); waiting.Err() == nil; {
			if _, err := AskStatus(waiting, socket); err == nil {
				answered = time.Now()
			} else if time.Since(answered) >= answerTimeout {
				giveUp(err)
			}
			select {
			case <-waiting.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	path := "/sync"
	if instance != "" {
		path += "?" + url.Values{"instance": {instance}}.Encode()
	}
	status, err := ask(waiting, socket, http.MethodPost, path)
	giveUp(nil)
	<-watched
	return status, err
}

// ask sends a request to the daemon behind the socket. An error of ctx comes as its cause.
func ask(ctx context.Context, socket, method, path string) (Status, error) {
	var status Status
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, nil)
	if err != nil {
		return status, err
	}
	response, err := client.Do(request)
	system, _ := errors.AsType[*net.OpError](err)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return status, context.Cause(ctx)
	case errors.Is(err, unix.EAGAIN):
		return status, fmt.Errorf("%w: too many wait for it at control_socket %s", ErrNoAnswer, socket)
	case system != nil && system.Op == "dial":
		return status, fmt.Errorf("%w at control_socket %s: %w", ErrNoDaemon, socket, system.Err)
	default:
		return status, fmt.Errorf("ask the daemon: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case ctx.Err() != nil:
		return status, context.Cause(ctx)
	case err == nil && response.StatusCode != http.StatusOK:
		return status, fmt.Errorf("the daemon answers: %s", body)
	case err == nil:
		err = json.Unmarshal(body, &status)
	}
	if err != nil {
		return status, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return status, nil
}
