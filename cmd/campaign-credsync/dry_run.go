package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/internal/logging"
	"campaign-credsync/sync"
)

// plan is what sync --dry-run --json prints. It is public and stable.
type plan struct {
	Instances []instancePlan `json:"instances"`
}

type instancePlan struct {
	Name           string      `json:"name"`
	AppliedVersion int         `json:"applied_version"`
	Held           bool        `json:"held"`
	PausedUntil    sync.Moment `json:"paused_until"`
	Problem        string      `json:"problem"` // why sync would fail; empty if it would not
	Steps          []planned   `json:"steps"`
}

// planned is a step, and the command that it runs. Empty: none.
type planned struct {
	sync.PlannedStep
	Command string `json:"command,omitempty"`
}

// runDry tells what a pass would do. It fails where the pass would fail.
func (in *invocation) runDry(ctx context.Context, asJSON bool) (int, error) {
	var all plan
	c, status, err := in.preview(ctx, func(instance string, p sync.Preview) {
		all.Instances = append(all.Instances, planOf(instance, p))
	})
	if err == nil {
		err = in.nameCommands(ctx, c, &all)
	}
	if err != nil {
		return max(status, exitFailed), err
	}
	for _, one := range all.Instances {
		due := slices.ContainsFunc(one.Steps, func(s planned) bool { return s.NotBefore.IsZero() })
		if one.Problem != "" {
			status = exitFailed
		} else if due && status == exitOK {
			status = exitDiffers
		}
		if !asJSON {
			in.showPlan(one)
		}
	}
	if asJSON {
		json.NewEncoder(in.stdout).Encode(all)
	}
	return status, nil
}

func planOf(instance string, p sync.Preview) instancePlan {
	one := instancePlan{Name: instance, AppliedVersion: p.Applied.Number, Held: p.Held, Steps: []planned{}}
	switch {
	case p.Paused != nil:
		one.PausedUntil.Time, one.Problem = p.Paused.Until, p.Paused.String()
	case p.Refused != nil:
		one.Problem = "keeps what is applied: " + p.Refused.Error()
	case p.Left != "":
		one.Problem = fmt.Sprintf("leaves drift of %s: %s", strings.Join(p.Drift, ", "), p.Left)
	}
	for _, s := range p.Steps {
		one.Steps = append(one.Steps, planned{PlannedStep: s})
	}
	return one
}

// nameCommands says what the steps run. Only an apply needs nlserver to be asked.
func (in *invocation) nameCommands(ctx context.Context, c *config.Config, all *plan) error {
	option := ""
	for _, one := range all.Instances {
		for n := range one.Steps {
			s := &one.Steps[n]
			switch s.Action {
			case sync.PlannedReload:
				s.Command = "nlserver config -reload"
			case sync.PlannedRestart:
				s.Command = "nlserver restart " + s.Module
			case sync.PlannedApply:
				if option == "" {
					log, closeLog := logging.New(c.Log, in.stderr, in.env, new(slog.LevelVar))
					defer closeLog()
					var err error
					if option, err = assembly.Option(ctx, c, log); err != nil {
						return fmt.Errorf("sync would fail: %w", err)
					}
				}
				s.Command = fmt.Sprintf("nlserver config -instance:%s -%s", one.Name, option)
			}
		}
	}
	return nil
}

func (in *invocation) showPlan(p instancePlan) {
	say := func(format string, args ...any) {
		fmt.Fprintf(in.stdout, "%s: %s\n", p.Name, fmt.Sprintf(format, args...))
	}
	if p.Problem != "" {
		say("sync fails: %s", p.Problem)
	}
	for _, s := range p.Steps {
		what := ""
		switch s.Action {
		case sync.PlannedProbe:
			what = fmt.Sprintf("ask Adobe about version %d", s.Version)
		case sync.PlannedApply:
			what = fmt.Sprintf("apply version %d with %s", s.Version, s.Command)
		case sync.PlannedRevert:
			what = "put back " + strings.Join(s.Attributes, ", ")
		case sync.PlannedRecord:
			what = fmt.Sprintf("record version %d", s.Version)
		default:
			what = "run " + s.Command
		}
		if !s.NotBefore.IsZero() {
			what += ", at " + s.NotBefore.UTC().Format(time.RFC3339)
		}
		say("would %s: %s", what, s.Why)
	}
	if p.Problem == "" && len(p.Steps) == 0 {
		say("in sync, nothing to do")
	}
}
