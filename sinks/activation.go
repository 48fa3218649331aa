package sinks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// stepReload makes the web module read its configuration again; other modules need a restart.
const stepReload = "reload"

// multiInstance are the modules that serve all instances of a container; they take no @instance.
var multiInstance = []string{"web", "syslogd", "trackinglogd", "watchdog"}

// ActivationSteps returns the steps that make Campaign's processes use an instance's new credential, in the order in
// which they are to be taken: "reload", "restart web", "restart pipelined@prod". A step's name is what a record of
// finished steps keeps, and what Activate takes. A module that is named with its @instance is left as it is.
func ActivationSteps(reload bool, modules []string, instance string) []string {
	var steps []string
	if reload {
		steps = append(steps, stepReload)
	}
	for _, module := range modules {
		if !strings.Contains(module, "@") && !slices.Contains(multiInstance, module) {
			module += "@" + instance
		}
		if step := "restart " + module; !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}

// Activate takes one step made by ActivationSteps. It returns after the configured timeout at the latest; of a restart that
// was begun ctx does not cut it short. A step may be taken again: it ends in the same state. Where a restart took longer, one
// that was begun after since and has ended well meanwhile is not repeated. One call at a time.
func (n *NLServer) Activate(ctx context.Context, step string, since time.Time) error {
	if _, err := n.inspectExecutable(); err != nil {
		return err
	}
	if step == stepReload {
		return n.reload(ctx)
	}
	if args := strings.Fields(step); len(args) == 2 && args[0] == "restart" && !strings.HasPrefix(args[1], "-") {
		return n.restart(ctx, args[1], since)
	}
	return fmt.Errorf("activation has no step %q", step)
}

func (n *NLServer) reload(ctx context.Context) error {
	env, err := n.environment(ctx, redactUnknown)
	if err != nil {
		return err
	}
	_, err = n.execute(ctx, "nlserver config -reload", nlserverRun{args: []string{"config", "-reload"}, env: env, redact: onlyKnown})
	return err
}
