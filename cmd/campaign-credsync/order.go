package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/logging"
	"campaign-credsync/sync/state"
)

// daemonStarts is how long a daemon that has locked the state directory may take to open its control socket.
const daemonStarts = 3 * time.Second

// order has an order carried out, and show print what came of it. Where a daemon has the state directory, or only its user may use that,
// the daemon does it.
func (in *invocation) order(ctx context.Context, o control.Order, show func(control.Status) int) (int, error) {
	uid := os.Getuid()
	o.ByUID = &uid
	if in.instance != "" {
		o.Instances = []string{in.instance}
	}
	c, err := in.load(ctx)
	if errors.Is(err, fs.ErrPermission) { // only a daemon could carry it out; it says whether it does so for this user
		status, failed := control.AskFor(ctx, config.DefaultSocket, o)
		switch {
		case errors.Is(failed, control.ErrNoDaemon):
			return exitUsage, err
		case failed != nil:
			return exitOf(failed), failed
		}
		return show(status), nil
	}
	if err != nil {
		return exitUsage, err
	}
	log, closeLog := logging.New(c.Log, in.stderr, in.env, new(slog.LevelVar))
	defer closeLog()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		status, err := assembly.Once(ctx, c, log, o)
		if errors.Is(err, state.ErrLocked) || errors.Is(err, state.ErrForeign) || errors.Is(err, assembly.ErrWrongUser) || errors.Is(err, fs.ErrPermission) {
			if byDaemon, failed := control.AskFor(ctx, c.ControlSocket, o); !errors.Is(failed, control.ErrNoDaemon) {
				status, err = byDaemon, failed
			}
		}
		if errors.Is(err, state.ErrLocked) {
			if time.Since(began) < daemonStarts {
				continue
			}
			// What the error says, to end it, is not for a daemon that works.
			return exitFailed, fmt.Errorf("another campaign-credsync has state_dir and does not answer at control_socket %s; if that is the daemon, see its "+
				"log: a socket that was removed is opened again within 11 s", c.ControlSocket)
		}
		if err != nil {
			return exitOf(err), err
		}
		return show(status), nil
	}
}

// exitOf is the exit status of a command that the daemon did not answer.
func exitOf(err error) int {
	if errors.Is(err, control.ErrMayNotAsk) {
		return exitMayNotAsk
	}
	return exitFailed
}
