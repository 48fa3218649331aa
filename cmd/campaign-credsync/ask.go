package main

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

// errNoDaemon says that nobody answers at the control socket.
var errNoDaemon = errors.New("no daemon answers")

// errNoAnswer says that somebody listens there and does not answer.
var errNoAnswer = errors.New("the daemon does not answer")

// answerPatience is how long an answer about the status may take.
const answerPatience = 10 * time.Second

func askStatus(ctx context.Context, socket string) (statusDocument, error) {
	limited, cancel := context.WithTimeoutCause(ctx, answerPatience, fmt.Errorf("%w: nothing came from control_socket %s in %v",
		errNoAnswer, socket, answerPatience))
	defer cancel()
	d, err := ask(limited, socket, http.MethodGet, "/status", nil)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = context.Cause(limited)
	}
	return d, err
}

// askSync has the daemon do a pass. That takes as long as nlserver does, so it is waited for while the daemon still tells
// its status.
func askSync(ctx context.Context, socket string, query url.Values) (statusDocument, error) {
	waiting, giveUp := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		answered := time.Now()
		for {
			select {
			case <-waiting.Done():
				return
			case <-time.After(time.Second):
			}
			if _, err := askStatus(waiting, socket); err == nil {
				answered = time.Now()
			} else if time.Since(answered) >= answerPatience {
				giveUp(err)
				return
			}
		}
	}()
	d, err := ask(waiting, socket, http.MethodPost, "/sync", query)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		err = context.Cause(waiting)
	}
	giveUp(nil)
	<-ended
	return d, err
}

// ask sends a request to the daemon behind the socket.
func ask(ctx context.Context, socket, method, path string, query url.Values) (statusDocument, error) {
	var d statusDocument
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path+"?"+query.Encode(), nil)
	if err != nil {
		return d, err
	}
	response, err := client.Do(request)
	if err != nil {
		if errors.Is(err, unix.EAGAIN) {
			return d, fmt.Errorf("%w: too many wait for it at control_socket %s", errNoAnswer, socket)
		}
		var system *net.OpError
		if errors.As(err, &system) && system.Op == "dial" {
			return d, fmt.Errorf("%w at control_socket %s: %w", errNoDaemon, socket, system.Err)
		}
		return d, fmt.Errorf("ask the daemon: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return d, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return d, fmt.Errorf("the daemon answers: %s", body)
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return d, fmt.Errorf("understand the daemon's answer: %w", err)
	}
	return d, nil
}
