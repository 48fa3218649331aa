package sync_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

type modelActivator struct {
	w *modelWorld
	g *generation
}

func stepsOf(instance string) []string { return []string{"reload", "restart pipelined@" + instance} }

func (a modelActivator) Activate(ctx context.Context, what credential.Step, _ time.Time) (credential.Proof, error) {
	w, step := a.w, what.String()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.effect(a.g, "before "+step) {
		return credential.Proof{}, errDead
	}
	for _, f := range w.files {
		if f.command != nil && f.command.by == a.g && slices.Contains(stepsOf(f.name), step) {
			w.breaks("%s while %s is being applied", step, f.name)
		}
	}
	if !a.g.dead && w.rules.unsavedSince.IsZero() && !slices.ContainsFunc(w.files, func(f *modelFile) bool {
		return slices.Contains(recordOnDisk(a.g, f.name).Activation, what)
	}) {
		w.breaks("%s is run, and nothing on record says that it is due", step)
	}
	if !slices.ContainsFunc(w.files, func(f *modelFile) bool { return slices.Contains(stepsOf(f.name), step) && !w.rules.of[f].isHeld(w) }) {
		w.breaks("%s is run, and the first apply is held", step)
	}
	w.note("%s, error %v", step, w.activateErr)
	if w.activateErr != nil {
		return credential.Proof{}, w.activateErr
	}
	w.rules.activated(w, step)
	w.activating = true
	takes := w.activateTime
	w.mu.Unlock()
	cut := false
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		cut = true
	}
	w.mu.Lock()
	if a.g == w.gen {
		w.activating = false
	}
	w.effect(a.g, "after "+step)
	if cut && !a.g.dead {
		w.rules.allowed[step]++ // it was begun, and could not be recorded
	}
	if cut || a.g.dead {
		return credential.Proof{}, errors.New("cut short")
	}
	return credential.Proof{}, nil
}

func (a modelActivator) Prove(string, []string) credential.Proof { return credential.Proof{} }
