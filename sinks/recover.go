package sinks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/sinks/sharedfile"
)

// Recover ends what a killed daemon left: it waits for an nlserver that outlived it (credential.ErrStillRunning: ask
// again), repairs what that left damaged, and settles stray copies.
func (i *Instance) Recover(ctx context.Context) error {
	lock, err := i.lockRun()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := i.file.SettleStrays(ctx); err != nil {
		return err
	}
	before, err := i.before.load()
	if err != nil || before == nil {
		return err
	}
	now, _, err := i.putRight(ctx)
	if err != nil {
		return err // also where the file is missing: it may come back as damaged as it went
	}
	if was, err := imsxml.Parse(before); err == nil {
		if err := i.undoUnproved(ctx, was.Attributes(), now.seen); err != nil {
			return err
		}
	}
	i.unproved = false
	return i.settled()
}

// undoUnproved puts attributes back where a run of ours has left something else that does not work. After a crash nobody
// knows whether a complete credential is the old or the new one, and it is kept.
func (i *Instance) undoUnproved(ctx context.Context, was, now credential.Attributes) error {
	var back credential.Attributes
	switch {
	case i.unproved:
		back = asBefore(was, now)
	case complete(was) && !complete(now):
		back = was.Select(documented)
	}
	if len(credential.Drift(back, now)) == 0 {
		return nil
	}
	if err := i.undo(ctx, back); err != nil {
		return err
	}
	i.log.Error("nlserver left the credential incomplete; it was restored", "path", i.cfg.File)
	return nil
}

// complete reports whether seen could be a credential that works: each part of it is there.
func complete(seen credential.Attributes) bool {
	for _, name := range []string{attrClientID, attrClientSecret, attrAccountID} {
		if seen.Get(name).Value == "" {
			return false
		}
	}
	return true
}

// undo puts attributes back that a run of ours left half replaced.
func (i *Instance) undo(ctx context.Context, was credential.Attributes) error {
	var found credential.Attributes
	return i.file.Repair(ctx, i.splice(was, &found))
}

const (
	// damageGrace is how long a file that does not parse after a run of ours is given: another editor may be at work.
	damageGrace = 300 * time.Millisecond
	// damageWatch is how long a file that was put back must stay whole: an editor that has read the damage may write it again.
	damageWatch = 500 * time.Millisecond
	damageLimit = 5 // times that it is put back in a row
)

// putRight returns what the file shows after a run of ours. When the run left it damaged, and nobody is writing it,
// the last whole bytes from before are put back, and the damage is told.
func (i *Instance) putRight(ctx context.Context) (now state, damage, err error) {
	deadline, wholeUntil := time.Now().Add(damageGrace), time.Time{}
	for times := 0; ; {
		now, err = i.look(ctx)
		late := !time.Now().Before(deadline)
		switch {
		case err == nil && !time.Now().Before(wholeUntil):
			return now, damage, nil
		case err == nil || !late && (errors.Is(err, credential.ErrMissing) || errors.Is(err, credential.ErrDamaged)):
			// look again
		case !errors.Is(err, credential.ErrDamaged):
			return now, damage, err
		default:
			if times++; times > damageLimit {
				return now, damage, fmt.Errorf("somebody goes on writing the damaged file: %w", err)
			}
			damage, wholeUntil = err, time.Now().Add(damageWatch)
			if err := i.putBack(ctx); err != nil {
				return now, damage, err
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return now, damage, ctx.Err()
		}
	}
}

// putBack replaces a damaged file by the one that was saved before.
func (i *Instance) putBack(ctx context.Context) error {
	whole, err := i.before.load()
	if err != nil {
		return err
	}
	if err := wellFormed(whole); err != nil {
		return fmt.Errorf("the file saved before it was written is not whole either: %w", err)
	}
	onlyDamaged := func(current []byte) ([]byte, error) {
		if !errors.Is(wellFormed(current), credential.ErrDamaged) {
			return current, nil // somebody repaired it meanwhile
		}
		return whole, nil
	}
	if err := i.file.Repair(ctx, onlyDamaged); err != nil {
		return fmt.Errorf("restore what was there before: %w", err)
	}
	i.log.Error("nlserver left the configuration file damaged; it was restored", "path", i.cfg.File)
	return nil
}

// preimage is the file as it was before a command of ours that writes was started. It exists while such a command runs,
// and after one whose end nobody saw.
type preimage struct{ path string }

func (p preimage) save(content []byte) error {
	if err := durable.WriteFile(p.path, content); err != nil {
		return fmt.Errorf("save the configuration before it is written: %w", err)
	}
	return nil
}

// load returns nil without an error when there is none.
func (p preimage) load() ([]byte, error) {
	content, err := regularfile.Read(p.path, sharedfile.MaxSize)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration saved before it was written: %w", err)
	}
	return content, nil
}

func (p preimage) drop() error {
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop the configuration saved before it was written: %w", err)
	}
	return nil
}
