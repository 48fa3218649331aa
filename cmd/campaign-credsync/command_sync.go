package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/logging"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

func newSyncCommand(in *invocation) *cobra.Command {
	var dryRun bool
	c := in.command("sync [--instance NAME] [--dry-run]", "Do one pass: what run would do once",
		`Does one pass over the instances and ends. Where the daemon runs, the daemon does the pass and its result is reported.

Exit status: 0 if all is in sync, 1 if something failed, 2 if the configuration is bad.`,
		func(ctx context.Context) (int, error) {
			if dryRun {
				return in.runDry(ctx)
			}
			return in.runSync(ctx)
		})
	in.addInstanceFlag(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return c
}

// daemonStarts is how long a daemon that has locked the state directory may take to open its control socket.
const daemonStarts = 3 * time.Second

// runSync does one pass. Where a daemon has the state directory, or only its user may do a pass, the daemon does it.
func (in *invocation) runSync(ctx context.Context) (int, error) {
	c, err := in.load(ctx)
	if err != nil {
		return exitUsage, err
	}
	log, closeLog := logging.New(c.Log, in.stderr, in.env, new(slog.LevelVar))
	defer closeLog()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		status, err := assembly.Sync(ctx, c, log)
		if errors.Is(err, state.ErrLocked) || errors.Is(err, assembly.ErrWrongUser) {
			if byDaemon, failed := control.AskSync(ctx, c.ControlSocket, in.instance); !errors.Is(failed, control.ErrNoDaemon) {
				status, err = byDaemon, failed
			}
		}
		if errors.Is(err, state.ErrLocked) && time.Since(began) < daemonStarts {
			continue
		}
		if err != nil {
			return exitFailed, err
		}
		return in.report(status), nil
	}
}

// report prints the result of a pass, a line an instance, and returns the exit status.
func (in *invocation) report(d control.Status) int {
	status := exitOK
	for _, i := range d.Instances {
		if in.instance != "" && i.Name != in.instance {
			continue
		}
		line := fmt.Sprintf("%s: %s", i.Name, i.State)
		if i.AppliedVersion != 0 {
			line += fmt.Sprintf(", version %d applied", i.AppliedVersion)
		}
		if i.LastError != "" {
			line += ": " + i.LastError
		}
		fmt.Fprintln(in.stdout, line)
		// Activation that waits for its schedule is what the configuration asks for.
		held := i.State == sync.StateActivationPending && i.LastError == ""
		if i.State != sync.StateInSync && !held {
			status = exitFailed
		}
	}
	return status
}

// runDry tells what a pass would do. It fails where the pass would fail.
func (in *invocation) runDry(ctx context.Context) (int, error) {
	failed := false
	status, err := in.preview(ctx, func(p sync.Preview, say func(string, ...any)) {
		failed = failed || p.Refused != nil || p.Left != ""
		if p.Refused != nil {
			say("would keep what is applied: %v", p.Refused)
		}
		if p.Left != "" {
			say("would leave drift of %s: %s", strings.Join(p.Drift, ", "), p.Left)
		}
		if len(p.Steps) > 0 {
			say("would %s", strings.Join(p.Steps, ", then "))
		} else if p.Refused == nil && p.Left == "" {
			say("in sync, nothing to do")
		}
	})
	if failed {
		status = exitFailed
	}
	return status, err
}
