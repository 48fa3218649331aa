package nlserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

// multiInstance are the modules that serve all instances of a container; they take no @instance.
var multiInstance = []string{"web", "syslogd", "trackinglogd", "watchdog"}

// Steps returns the steps that make Campaign's processes use an instance's new credential, in the order in which they are
// to be taken. A reload makes the web module read its configuration again; other modules need a restart. A module that is named with
// its @instance is left as it is.
func Steps(reload bool, modules []string, instance string) []credential.Step {
	var steps []credential.Step
	if reload {
		steps = append(steps, credential.Step{Kind: credential.StepReload})
	}
	for _, module := range modules {
		if !strings.Contains(module, "@") && !slices.Contains(multiInstance, module) {
			module += "@" + instance
		}
		if step := (credential.Step{Kind: credential.StepRestart, Module: module}); !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}

// Activate takes one step made by Steps. It returns after the configured timeout at the latest; of a restart that
// was begun ctx does not cut it short. A step may be taken again: it ends in the same state. Where a restart took longer, one
// that was begun after since and has ended well meanwhile is not repeated. One call at a time.
func (n *Server) Activate(ctx context.Context, step credential.Step, since time.Time) error {
	if _, err := n.inspectExecutable(); err != nil {
		return err
	}
	switch {
	case step.Kind == credential.StepReload:
		return n.reload(ctx)
	case step.Kind == credential.StepRestart && step.Module != "" && !strings.HasPrefix(step.Module, "-"):
		return n.restart(ctx, step.Module, since)
	}
	return fmt.Errorf("activation has no step %q", step)
}

func (n *Server) reload(ctx context.Context) error {
	env, err := n.environment(ctx, redactUnknown)
	if err != nil {
		return err
	}
	_, err = n.execute(ctx, "nlserver config -reload", command{args: []string{"config", "-reload"}, env: env, redact: onlyKnown})
	return err
}
