// Package sync keeps each instance's credential equal to its source. It decides when a credential is applied, when drift is reverted,
// when Campaign's processes are told, and when nothing may be touched. It knows neither where credentials come from nor how Campaign
// stores them: [Source], [Sink] and [Activator] do; whether Adobe accepts one, [Prober] asks.
//
// After each event (a poll, a file event, a timer, a signal, the end of a step) the same question is asked for each instance: what is
// wanted, what was applied, what is on disk, so what is to be done? Daemon.plan answers it.
//
// Read lock.go and step.go first, then, in the order in which a version travels: poll.go, daemon.go (reconcile), plan.go, file.go,
// held.go, probe.go, apply.go, record.go, activation.go, status.go. After that what comes in between: check.go, orders.go, pause.go,
// recheck.go, retry.go, clock.go; preview.go, inherit.go and events.go; and stop.go for the end.
package sync

import (
	"context"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// Source says which credential is wanted. Instances that share a Source share its polls.
//
// Poll returns the newest version. It asks need before it reads the secret of that version; when need says no, Reading.Credential is
// nil. A source that was reached and has no usable credential returns a *credential.Refusal; every other error means unreachable. An
// error that waiting does not mend is marked by credential.NeedsOperator; one that knows when there will be an answer has a method
// RetryAt(). Poll honours ctx, and is called again only after it has returned.
type Source interface {
	Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error)
}

// Sink is the configuration file of one instance, and the command that writes it. Its methods are called one at a time: Recover
// first, until it succeeds, and again after an Apply that failed. They honour ctx, except that Apply never cuts off a command that
// writes.
type Sink interface {
	// Recover ends what a killed daemon left: it waits for its command (credential.ErrStillRunning), repairs a damaged file, and
	// merges or removes stray files. With nothing left it does nothing.
	Recover(ctx context.Context) error
	// Look returns the attributes that are in the file now. Errors: credential.ErrMissing, ErrDamaged, ErrBusy.
	Look(ctx context.Context) (credential.Attributes, error)
	// Apply writes c and proves it by looking. others is what an Apply of another secret returned: found afterwards, it disproves this
	// one; nil where none is known. It returns the attributes to be kept from now on, with those that must stay absent, and the time
	// that the command took. A second Apply of the same credential is allowed.
	Apply(ctx context.Context, c credential.Credential, others credential.Attributes) (credential.Attributes, time.Duration, error)
	// Restore looks, and puts wanted into the file as it is then if anything differs. It returns the attributes that it found
	// before. They are nil only when it could not look: then errors are as of Look, else what kept it from writing, such as
	// credential.ErrCannotSplice.
	Restore(ctx context.Context, wanted credential.Attributes) (credential.Attributes, error)
	// ChangedAt returns when the file was last changed or put at its path, by a time that editors do not set. Zero: not known.
	ChangedAt() time.Time
	// Owner names the file's owner, for people. It may be called while another method is under way.
	Owner() string
	// Managed picks from what Look saw the attributes to be guarded where nobody knows the credential, with those that must stay absent.
	// complete says that they make a credential.
	Managed(seen credential.Attributes) (managed credential.Attributes, complete bool)
	// WrongIDs names the attributes seen that are in clear and are not those of c.
	WrongIDs(c credential.Credential, seen credential.Attributes) []string
}

// Activator tells the running processes of a new credential.
type Activator interface {
	// Activate runs one step. It is not called concurrently, nor while any Sink applies. It returns within a bound of its own. When
	// ctx has ended it begins no command; a reload under way gets a moment more, and a restart is not cut off. One that lasts longer
	// runs on, and is an error; when it has ended well it counts as the step if it was begun after since.
	//
	// The proof tells whether what was restarted runs again.
	Activate(ctx context.Context, step credential.Step, since time.Time) (credential.Proof, error)
	// Prove looks again whether a module that did not runs; before are the processes that there were before its restart.
	Prove(module string, before []string) credential.Proof
}

// Prober asks Adobe whether it accepts a credential.
//
// Probe returns nil if so, and a *credential.Refusal if not. Every other error says nothing about the credential; one that knows when to
// ask again has a method RetryAt(). Probe has a time limit of its own, and honours ctx. It may be called concurrently.
type Prober interface {
	Probe(ctx context.Context, c credential.Credential) error
}

// Meter counts what was done. Its methods may be called concurrently, and do not block.
type Meter interface {
	Reverted(took time.Duration)
	Applied(took time.Duration)
	Activated(took time.Duration)
	Probed(result state.ProbeResult)
}

// RevertMode says what becomes of drift.
type RevertMode string

// The ways to revert drift.
const (
	RevertSplice RevertMode = "splice"   // put the attributes back into the file; the default
	RevertApply  RevertMode = "nlserver" // apply again
	RevertAlert  RevertMode = "alert"    // only report
)

// Instance is one instance of Campaign and where its credential comes from.
type Instance struct {
	Name          string
	Source        Source
	Fields        credential.Fields // what the secret calls the fields of the credential
	Sink          Sink
	File          string // names the configuration file of Sink; what is remembered of a file of another name is not used for it
	AllowRollback bool   // apply a version that goes back
	// Steps are what activation takes, in order. A step that is the same for several instances serves all of them.
	Steps []credential.Step
}

// Config is what a Daemon works with.
type Config struct {
	Instances []Instance // at least one
	Activator Activator
	Store     *state.Store

	Poll       time.Duration // between two polls of a source, jittered by 10 %
	Revert     RevertMode
	MaxReverts int  // reverts an hour and instance
	HoldFirst  bool // a first apply over a credential that somebody else set waits for an operator
	// Ordered says that this Daemon runs by an operator's order, for which a first apply waits.
	Ordered bool
	// OnlyLooks has it write and run nothing, as a pause does, but records and what Sink.Recover has to finish.
	OnlyLooks bool
	Prober    Prober // nil: Adobe is not asked
	// Patience is for how long a version waits for an answer that says something; 0: it is applied without asking.
	Patience time.Duration
	Recheck  time.Duration // between two questions about the applied credential, jittered by 10 %; 0: none
	// Verify, Reapply and ActivateAt are schedules; nil means never, for ActivateAt at once.
	Verify, Reapply, ActivateAt cron.Schedule
	// Before is the Daemon that this one replaces, by an operator's order; its Run has returned, and its Store is this one's. What it
	// knew of a Source or Sink is kept where Instances have the same one (by ==). Reverts that the brake stopped are resumed.
	Before *Daemon

	// CommandRuns reports whether a command of a Sink or the Activator runs, and within its own time limit. Its time does not count
	// as that of the step, and a stop waits for it.
	CommandRuns func() bool
	// OnStatus is called with the instances whose status may have changed: by New with all, without the lock, else with the lock held. It
	// must not block, nor call the Daemon. May be nil.
	OnStatus func([]InstanceStatus)
	// OnEvent is called for each event, with the lock held. It must not block. May be nil.
	OnEvent func(event.Event)
	// Meter is told how long things took. May be nil.
	Meter  Meter
	Logger *slog.Logger
}
