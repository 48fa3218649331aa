package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// runSync does one pass, or has the daemon that runs do it.
func runSync(ctx context.Context, in *invocation, c *config, options syncOptions) error {
	log := newLogger(c.Log, in.stderr, in.env, new(slog.LevelVar))
	if options.dryRun {
		return runDry(ctx, in, c, log, options.instance)
	}
	p, err := prepare(ctx, c, log, options.instance, 0)
	if errors.Is(err, state.ErrLocked) {
		return runSyncByDaemon(ctx, in, c, options.instance)
	}
	if errors.Is(err, errWrongUser) { // a daemon that runs does it as the right one
		if byDaemon := runSyncByDaemon(ctx, in, c, options.instance); !errors.Is(byDaemon, errNoDaemon) {
			return byDaemon
		}
	}
	if err != nil {
		return err
	}
	defer p.close()
	a := p.assembly
	defer a.close()
	daemon, err := sync.New(a.settings)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { daemon.Run(running); close(ended) }()
	select {
	case <-daemon.Ready():
	case <-ctx.Done():
	}
	status := daemon.Status()
	stop()
	<-ended
	a.settle()
	if err := ctx.Err(); err != nil {
		return err
	}
	return report(in.stdout, a.document(status))
}

func runSyncByDaemon(ctx context.Context, in *invocation, c *config, instance string) error {
	query := url.Values{}
	if instance != "" {
		query.Set("instance", instance)
	}
	d, err := askSync(ctx, c.ControlSocket, query)
	if err != nil {
		return err
	}
	if instance != "" {
		for _, one := range d.Instances {
			if one.Name == instance {
				d.Instances = []instanceDocument{one}
			}
		}
	}
	return report(in.stdout, d)
}

// report prints the result of a pass, a line an instance.
func report(w io.Writer, d statusDocument) error {
	failed := false
	for _, in := range d.Instances {
		line := fmt.Sprintf("%s: %s", in.Name, in.State)
		if in.AppliedVersion != 0 {
			line += fmt.Sprintf(", version %d applied", in.AppliedVersion)
		}
		if in.LastError != "" {
			line += ": " + in.LastError
		}
		fmt.Fprintln(w, line)
		// Activation that waits for its schedule is what the configuration asks for.
		held := in.State == sync.StateActivationPending && in.LastError == ""
		failed = failed || in.State != sync.StateInSync && !held
	}
	if failed {
		return &exit{status: exitFailed}
	}
	return nil
}

// runDry tells what a pass would do. It fails where the pass would fail.
func runDry(ctx context.Context, in *invocation, c *config, log *slog.Logger, instance string) error {
	outlooks, err := look(ctx, c, log, instance)
	if err != nil {
		return err
	}
	failed := false
	for _, o := range outlooks {
		switch {
		case o.err != nil:
			failed = true
			fmt.Fprintf(in.stdout, "%s: cannot tell: %v\n", o.name, o.err)
		case o.Refusal != nil:
			failed = true
			fmt.Fprintf(in.stdout, "%s: would keep what is applied: %v\n", o.name, o.Refusal)
		case o.Apply:
			fmt.Fprintf(in.stdout, "%s: would apply version %d (applied: %s)\n", o.name, o.Version.Number, number(o.Applied.Number))
		case len(o.Drift) > 0 && c.Drift.Revert == string(sync.RevertAlert):
			failed = true
			fmt.Fprintf(in.stdout, "%s: would leave drift of %s (drift.revert: alert)\n", o.name, strings.Join(o.Drift, ", "))
		case o.Braked:
			failed = true
			fmt.Fprintf(in.stdout, "%s: would leave drift of %s for now: more than drift.max_reverts reverts in an hour\n", o.name, strings.Join(o.Drift, ", "))
		case len(o.Drift) > 0:
			fmt.Fprintf(in.stdout, "%s: would put back %s\n", o.name, strings.Join(o.Drift, ", "))
		case len(o.Activation) > 0:
			fmt.Fprintf(in.stdout, "%s: would activate: %s\n", o.name, joined(o.Activation))
		default:
			fmt.Fprintf(in.stdout, "%s: in sync, nothing to do\n", o.name)
		}
	}
	if failed {
		return &exit{status: exitFailed}
	}
	return nil
}

func joined(steps []credential.Step) string {
	var names []string
	for _, step := range steps {
		names = append(names, step.String())
	}
	return strings.Join(names, ", ")
}

// runDiff names what differs.
func runDiff(ctx context.Context, in *invocation, c *config, instance string) error {
	log := newLogger(c.Log, in.stderr, in.env, new(slog.LevelVar))
	outlooks, err := look(ctx, c, log, instance)
	if err != nil {
		return err
	}
	failed, differs := false, false
	for _, o := range outlooks {
		if o.err != nil {
			failed = true
			fmt.Fprintf(in.stderr, "%s: %v\n", o.name, o.err)
			continue
		}
		for _, name := range o.Drift {
			differs = true
			fmt.Fprintf(in.stdout, "%s: %s differs from what was applied\n", o.name, name)
		}
		if o.Apply {
			differs = true
			for _, name := range sinks.Changes(*o.Credential, o.Seen) {
				fmt.Fprintf(in.stdout, "%s: %s changes with version %d, which waits to be applied (applied: %s)\n",
					o.name, name, o.Version.Number, number(o.Applied.Number))
			}
		}
		if o.Refusal != nil {
			differs = true
			fmt.Fprintf(in.stdout, "%s: the secret is refused: %v\n", o.name, o.Refusal)
		}
		for _, step := range o.Activation {
			differs = true
			fmt.Fprintf(in.stdout, "%s: activation waits: %s\n", o.name, step)
		}
	}
	switch {
	case failed:
		return &exit{status: exitFailed}
	case differs:
		return &exit{status: exitDiffers}
	}
	return nil
}

type instanceOutlook struct {
	name string
	sync.Outlook
	err error
}

// look compares what is wanted, applied and on disk, without a lock and without a write but one: a refused login is noted,
// in a state directory that is made for it where there is none, since the next command must not try the same again.
func look(ctx context.Context, c *config, log *slog.Logger, instance string) ([]instanceOutlook, error) {
	var store *state.Store
	a, err := within(ctx, fileLimit, "the start", func() (*assembly, error) {
		store = state.Read(c.StateDir)
		return assemble(c, store, nil, log, instance, nil)
	})
	if err != nil {
		return nil, err
	}
	defer a.close()
	var outlooks []instanceOutlook
	for _, one := range a.instances {
		outlook, err := within(ctx, lookLimit, "the look", func() (sync.Outlook, error) {
			return sync.Look(ctx, one, store, c.Drift.MaxReverts)
		})
		outlooks = append(outlooks, instanceOutlook{one.Name, outlook, err})
	}
	return outlooks, nil
}
