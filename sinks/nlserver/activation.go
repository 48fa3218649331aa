package nlserver

import (
	"cmp"
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
// to be taken. A reload makes the web module read its configuration again; other modules need a restart. Modules are named without
// @instance.
func Steps(reload bool, modules []string, instance string) []credential.Step {
	var steps []credential.Step
	if reload {
		steps = append(steps, credential.Step{Kind: credential.StepReload})
	}
	for _, module := range modules {
		if !slices.Contains(multiInstance, module) {
			module += "@" + instance
		}
		if step := (credential.Step{Kind: credential.StepRestart, Module: module}); !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}

// reloadGrace is what a reload under way has at a stop before it is cut short.
const reloadGrace = 1500 * time.Millisecond

// Activate takes one step made by Steps. It returns after the configured timeout at the latest. When ctx has ended it begins nothing;
// a reload that was begun has reloadGrace left, and a restart is not cut short. A step may be taken again: it ends in the same state.
// Where a restart took longer, one that was begun after since and has ended well meanwhile is not repeated. One call at a time.
//
// After a restart the proof tells whether the module runs again. It is looked for until the timeout, counted from the begin of the restart,
// or until ctx has ended.
func (b *Binary) Activate(ctx context.Context, step credential.Step, since time.Time) (credential.Proof, error) {
	switch step.Kind {
	case credential.StepRestart:
		return b.restart(ctx, step.Module, since)
	case credential.StepReload:
		err := b.reload(ctx)
		b.ran("", doReload, err)
		return credential.Proof{}, err
	}
	return credential.Proof{}, fmt.Errorf("activation has no step %q", step)
}

const nameReload = "nlserver config -reload"

// reload has the web module read its configuration again.
func (b *Binary) reload(ctx context.Context) error {
	if b.isOutside() {
		return b.reloadOutside(ctx)
	}
	env, err := b.environment(ctx)
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return err
	}
	begun, cut := withGrace(ctx)
	defer cut()
	printed, err := b.reloadHere(begun, env)
	return b.explain(nameReload, printed, err)
}

// reloadHere returns what nlserver printed, and how it ended.
func (b *Binary) reloadHere(ctx context.Context, env []string) (printed string, err error) {
	printed, _, err = b.execute(ctx, child{args: []string{"config", "-reload"}, env: env})
	return printed, err
}

// withGrace returns a context that ends reloadGrace after ctx, or when it is cut.
func withGrace(ctx context.Context) (begun context.Context, cut func()) {
	begun, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(reloadGrace, cancel) })
	return begun, func() { stop(); cancel() }
}

// After failuresBeforePause failed restarts of a module in a row it is restarted at most every restartPause: each may have taken
// down what still worked.
const (
	failuresBeforePause = 3
	restartPause        = 10 * time.Minute
)

// pausedError says that a module is not restarted yet.
type pausedError struct {
	module string
	until  time.Time
	last   failures
}

func (e pausedError) Error() string {
	return fmt.Sprintf("nlserver restart %s failed %d times in a row; it is tried again every %s, next at %s, or after systemctl reload campaign-credsync; last: %s",
		e.module, failuresBeforePause, restartPause, e.until.Format(time.TimeOnly), e.last.Text)
}

// RetryAt tells when it is restarted.
func (e pausedError) RetryAt() time.Time { return e.until }

// restart restarts a module and waits for the end of that, up to the timeout. One that takes longer runs on; until it has ended no other
// of this module is begun.
func (b *Binary) restart(ctx context.Context, module string, since time.Time) (proof credential.Proof, err error) {
	if r := b.restarts[module]; r != nil && r.running() || b.outlived(module) {
		return proof, errBusy(module)
	}
	last := b.last(module)
	if last != nil && last.err == nil && last.began.After(since) {
		b.restarts[module] = nil
		return b.proveRestart(ctx, module, last.look, last.said, time.Now().Add(b.cfg.Timeout)), nil
	}
	if f := last.failures(); f.Count >= failuresBeforePause && time.Since(f.LastAt) < restartPause {
		return proof, pausedError{module, f.LastAt.Add(restartPause), f}
	}
	if err := b.tooSoon(module); err != nil { // the service would say the same, at the cost of a start
		return proof, err
	}
	begin := b.beginHere
	if b.isOutside() {
		begin = b.beginOutside
	}
	seen := b.lookBefore(module)
	r, err := begin(ctx, module)
	if err != nil {
		return proof, err
	}
	r.look = seen
	b.restarts[module] = r
	name, instance, _ := strings.Cut(module, "@")
	if b.cfg.Meter != nil {
		b.cfg.Meter.Restarted(instance, name)
	}
	defer countCommand(b.cfg.Timeout)()
	select {
	case <-r.ended:
	case <-time.After(b.cfg.Timeout):
		b.ran(instance, doRestart, context.DeadlineExceeded)
		return proof, fmt.Errorf("nlserver restart %s: still running after %s, the limit of campaign.timeout; it is left to run, and no other is begun before it has ended: %w",
			module, b.cfg.Timeout, context.DeadlineExceeded)
	}
	b.ran(instance, doRestart, r.err)
	if r.err != nil {
		return proof, fmt.Errorf("nlserver restart %s: %w%s", module, r.err, why(r.said))
	}
	b.restarts[module] = nil
	return b.proveRestart(ctx, module, seen, r.said, r.began.Add(b.cfg.Timeout)), nil
}

// last is the newest restart of a module that failed or has not ended. The first time it is what an earlier process has left.
func (b *Binary) last(module string) *restart {
	r, known := b.restarts[module]
	if !known {
		if r = b.lastFailed(module); r != nil {
			r.forgiven.Store(b.forgives)
		}
		b.restarts[module] = r
	}
	return r
}

// Retry forgets, by an operator's order, which option is offered, and that restarts failed. Activate must not be under way.
func (b *Binary) Retry() {
	b.offer.Store(nil)
	b.forgives = true
	for _, r := range b.restarts {
		if r != nil {
			r.forgiven.Store(true)
		}
	}
}

// TakeOver has b go on with what before knows of restarts. b is not used yet.
func (b *Binary) TakeOver(before *Binary) { b.restarts = before.restarts }
