package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
)

// Recover ends what a killed daemon left: it waits for an nlserver that outlived it (credential.ErrStillRunning: ask
// again), repairs what that left damaged, undoes an interrupted trial, and settles stray copies.
func (i *Instance) Recover(ctx context.Context) error {
	lock, err := i.lockRun()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := i.file.SettleStrays(ctx); err != nil {
		return err
	}
	if err := i.recoverTrial(ctx); err != nil {
		return err
	}
	before, is, err := i.readSaved()
	if err == nil && !is {
		if err = i.takeOverSaved(); err == nil {
			before, is, err = i.readSaved()
		}
	}
	if err != nil || !is {
		return err
	}
	now, _, err := i.repair(ctx, before)
	if err != nil {
		return err // also where the file is missing: it may come back as damaged as it went
	}
	was, err := imsxml.Parse(before)
	if err != nil {
		return i.endRun() // of no use, and not needed
	}
	restored := i.unprovedAttributes(was.Attributes(), now.seen)
	if len(credential.Drift(restored, now.seen)) == 0 {
		return i.endRun()
	}
	if err := i.undoRun(ctx, restored, true); err != nil {
		return err
	}
	i.log.Error("nlserver left the credential incomplete; it was restored", "path", i.cfg.File, "remedy", "see whether the disk is full, and why nlserver failed")
	return nil
}

// unprovedAttributes are those to be restored where a run of ours has left something else that does not work. After a crash nobody
// knows whether a complete credential is the old or the new one, and it is kept.
func (i *Instance) unprovedAttributes(was, now credential.Attributes) credential.Attributes {
	switch {
	case i.unproved:
		return asBefore(was, now)
	case complete(was) && !complete(now):
		return was.Select(documented)
	}
	return nil
}

// complete reports whether seen could be a credential that works: each part of it is there.
func complete(seen credential.Attributes) bool {
	return seen.Get(attrClientID).Value != "" && seen.Get(attrClientSecret).Value != "" && seen.Get(attrAccountID).Value != ""
}

// undoRun restores the attributes that a run without proof may have changed: what worked before must not stay half replaced. If this
// fails, or is not for good because a process of the run lives on and may write later, Recover goes on with the file saved before.
func (i *Instance) undoRun(ctx context.Context, was credential.Attributes, forGood bool) error {
	var found credential.Attributes
	if err := i.file.Repair(ctx, i.splice(was, &found)); err != nil {
		return err
	}
	if !forGood {
		i.unproved = false // a credential that is complete by then may be an operator's
		return nil
	}
	return i.endRun()
}

// endRun ends a run that wrote: the saved file is removed when what is at the path is on disk. nlserver and editors do not see to that,
// and after a power failure the file may be empty.
func (i *Instance) endRun() error {
	i.unproved = false
	if err := i.file.Sync(); err != nil {
		return err
	}
	return i.dropSaved()
}

const (
	// damageGrace is how long a file that is damaged after a run of ours is given: another editor may be at work.
	damageGrace = 300 * time.Millisecond
	// damageWatch is how long a file that was restored must stay whole: an editor that has read the damage may write it again.
	damageWatch = 500 * time.Millisecond
	damageLimit = 5 // times that it is restored in a row
)

// repair returns what the file shows after a run of ours. When the run left it damaged, and nobody is writing it, the whole bytes from
// before are restored, and damage says so.
func (i *Instance) repair(ctx context.Context, whole []byte) (now state, damage, err error) {
	deadline, wholeUntil := time.Now().Add(damageGrace), time.Time{}
	for restored := 0; ; {
		if now, err = i.look(ctx); err == nil {
			err = keepsPlace(now.content, whole)
		}
		late := !time.Now().Before(deadline)
		switch {
		case err == nil && !time.Now().Before(wholeUntil):
			return now, damage, nil
		case err == nil || !late && (errors.Is(err, credential.ErrMissing) || isDamage(err)):
			// look again
		case !isDamage(err):
			return now, damage, err
		case restored == damageLimit:
			return now, damage, fmt.Errorf("another program keeps writing the damaged file: %w", err)
		default:
			damage = fmt.Errorf("nlserver left it damaged, and it was restored: %w", err)
			if err := i.restoreFile(ctx, whole); err != nil {
				return now, damage, err
			}
			wholeUntil = time.Now().Add(damageWatch)
			restored++
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return now, damage, ctx.Err()
		}
	}
}

// errPlaceGone says that a well-formed file has lost the element that <ims> belongs into.
var errPlaceGone = errors.New("<serverconf><shared> is gone, and all that was in it")

// isDamage reports whether a file is no more what it was before a run of ours.
func isDamage(err error) bool {
	return errors.Is(err, credential.ErrDamaged) || errors.Is(err, errPlaceGone)
}

func keepsPlace(now, before []byte) error {
	was, err := imsxml.Parse(before)
	if err != nil || !was.HasPlace() {
		return nil
	}
	if is, err := imsxml.Parse(now); err == nil && !is.HasPlace() {
		return errPlaceGone
	}
	return nil
}

// restoreFile replaces a damaged file by the one that was saved before.
func (i *Instance) restoreFile(ctx context.Context, whole []byte) error {
	if err := wellFormed(whole); err != nil {
		return fmt.Errorf("the file saved before it was written is not whole either: %w", err)
	}
	onlyDamaged := func(current []byte) ([]byte, error) {
		if isDamage(cmp.Or(wellFormed(current), keepsPlace(current, whole))) {
			return whole, nil
		}
		return current, nil // somebody repaired it meanwhile
	}
	if err := i.file.Repair(ctx, onlyDamaged); err != nil {
		return fmt.Errorf("restore what was there before: %w", err)
	}
	i.log.Error("nlserver left the configuration file damaged; it was restored", "path", i.cfg.File, "remedy", "see whether the disk is full, and why nlserver failed")
	return nil
}
