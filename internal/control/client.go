package control

import (
	"bytes"
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

var (
	// ErrNoDaemon says that nobody answers at the control socket.
	ErrNoDaemon = errors.New("no daemon answers")
	// ErrMayNotAsk says that a daemon is there, and not for this user.
	ErrMayNotAsk = errors.New("this user may not ask the daemon")

	errNoAnswer = errors.New("the daemon does not answer") // somebody listens
	errCut      = errors.New("the daemon closed the connection before it had answered; see its log, and try again")
)

// answerTimeout is how long an answer about the status may take.
const answerTimeout = 10 * time.Second

// AskStatus asks the daemon behind the socket for its status.
func AskStatus(ctx context.Context, socket string) (Status, error) {
	limited, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("%w: nothing came from control_socket %s in %v",
		errNoAnswer, socket, answerTimeout))
	defer cancel()
	return askStatus(limited, socket, http.MethodGet, "/status")
}

// AskHistory asks for the events of the history, a line of JSON each, and AskMetrics for what Prometheus would be answered.
func AskHistory(ctx context.Context, socket string) ([]byte, error) {
	return askShortly(ctx, socket, "/history")
}

// AskMetrics is described at AskHistory.
func AskMetrics(ctx context.Context, socket string) ([]byte, error) {
	return askShortly(ctx, socket, "/metrics")
}

// DaemonPID is the process that listens at the socket, as the kernel knows it; 0 where that is in another PID namespace.
func DaemonPID(ctx context.Context, socket string) (pid int, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, asked); err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// AskVault has the daemon ask Vault what its login may do, and returns the answer as JSON.
func AskVault(ctx context.Context, socket string) ([]byte, error) {
	return askShortly(ctx, socket, "/vault")
}

func askShortly(ctx context.Context, socket, path string) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("%w: nothing came from control_socket %s in %v",
		errNoAnswer, socket, answerTimeout))
	defer cancel()
	return ask(limited, socket, http.MethodGet, path)
}

// AskFor has the daemon carry out an order. A pass takes as long as nlserver does, so that is waited for until the daemon has not told
// its status for answerTimeout.
func AskFor(ctx context.Context, socket string, o Order) (Status, error) {
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
	query := url.Values{"instance": o.Instances}
	if o.Do == DoPause {
		query.Set("for", o.For.String())
		query.Set("reason", o.Reason)
	}
	status, err := askStatus(waiting, socket, http.MethodPost, "/"+o.Do+"?"+query.Encode())
	giveUp(nil)
	<-watched
	return status, err
}

func askStatus(ctx context.Context, socket, method, path string) (status Status, err error) {
	body, err := ask(ctx, socket, method, path)
	if err == nil {
		if err = json.Unmarshal(body, &status); err != nil {
			err = fmt.Errorf("read the daemon's answer: %w", err)
		}
	}
	return status, err
}

// ask sends a request to the daemon behind the socket. An error of ctx comes as its cause. Where too many ask, it tries again.
func ask(ctx context.Context, socket, method, path string) ([]byte, error) {
	for {
		body, err := askOnce(ctx, socket, method, path)
		queueFull, cut := errors.Is(err, unix.EAGAIN), errors.Is(err, errCut)
		if !queueFull && !(cut && method == http.MethodGet) { // an order may have been carried out
			return body, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(minTurn):
		}
	}
}

func askOnce(ctx context.Context, socket, method, path string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	system, _ := errors.AsType[*net.OpError](err)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%w at control_socket %s: run it with sudo, or join control_group", ErrMayNotAsk, socket)
	case system != nil && system.Op == "dial" && !errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("%w at control_socket %s: %w", ErrNoDaemon, socket, system.Err)
	default:
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errCut, err)
	case response.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("%w for that: %s; run it with sudo", ErrMayNotAsk, bytes.TrimSpace(body))
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the daemon answers: %s", bytes.TrimSpace(body))
	}
	return body, nil
}
