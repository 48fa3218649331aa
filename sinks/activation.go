package sinks

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// Activate takes one step made by ActivationSteps, bounded by the configured timeout. A step may be taken again: it
// ends in the same state. May be called concurrently.
func (n *NLServer) Activate(ctx context.Context, step string) error {
	args := strings.Fields(step)
	switch {
	case step == stepReload:
		args = []string{"config", "-reload"}
	case len(args) == 2 && args[0] == "restart" && !strings.HasPrefix(args[1], "-"):
	default:
		return fmt.Errorf("activation has no step %q", step)
	}
	if _, err := n.inspectExecutable(); err != nil {
		return err
	}
	env, err := n.environment(ctx, redactShapes)
	if err != nil {
		return err
	}
	_, err = n.execute(ctx, "nlserver "+strings.Join(args, " "), nlserverRun{args: args, env: env, redact: redactShapes})
	return err
}
