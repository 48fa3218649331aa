package sinks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/sinks/sharedfile"
)

const (
	// damageGrace is how long a file that does not parse after a run of ours is given: another editor may be at work.
	damageGrace = 300 * time.Millisecond
	// damageWatch is how long a file that was put back must stay whole: an editor that has read the damage may write it again.
	damageWatch = 500 * time.Millisecond
	damageLimit = 5 // times that it is put back in a row
)

// putRight returns the document as it is after a run of ours. When the run left it damaged, and nobody is writing it,
// the last whole bytes from before are put back, and the damage is told.
func (i *Instance) putRight(ctx context.Context) (d *imsxml.Document, stamp sharedfile.Stamp, damage, err error) {
	deadline, wholeUntil := time.Now().Add(damageGrace), time.Time{}
	for times := 0; ; {
		data, stamp, err := i.file.Read(ctx)
		if err != nil && (!errors.Is(err, credential.ErrMissing) || time.Now().After(deadline)) {
			return nil, stamp, damage, err
		}
		if err == nil {
			d, err = i.scan(data)
			switch {
			case err == nil && !time.Now().Before(wholeUntil):
				return d, stamp, damage, nil
			case err != nil && !time.Now().Before(deadline):
				if times++; times > damageLimit {
					return nil, stamp, damage, fmt.Errorf("somebody goes on writing the damaged file: %w", err)
				}
				damage, wholeUntil = err, time.Now().Add(damageWatch)
				if err := i.putBack(ctx); err != nil {
					return nil, stamp, damage, err
				}
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, stamp, damage, ctx.Err()
		}
	}
}

// putBack replaces a damaged file by the pre-image.
func (i *Instance) putBack(ctx context.Context) error {
	whole, err := i.before.load()
	if err != nil {
		return err
	}
	if _, err := imsxml.Parse(whole); err != nil {
		return fmt.Errorf("the file saved before it was written is not whole either: %w", err)
	}
	onlyDamaged := func(current []byte) ([]byte, error) {
		if _, err := imsxml.Parse(current); err == nil {
			return current, nil // somebody repaired it meanwhile
		}
		return whole, nil
	}
	if err := i.file.Repair(ctx, onlyDamaged); err != nil {
		return fmt.Errorf("put back what was there before: %w", err)
	}
	i.log.Error("nlserver left the configuration file damaged; it was put back as it was before", "path", i.cfg.File)
	return nil
}

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
	document, _, _, err := i.putRight(ctx)
	if err != nil {
		return err // also where the file is missing: it may come back as damaged as it went
	}
	if was, err := imsxml.Parse(before); err == nil {
		if err := i.undoUnproved(ctx, was.Attributes(), document.Attributes()); err != nil {
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
		back = documentedOf(was)
	}
	if len(credential.Drift(back, now)) == 0 {
		return nil
	}
	if err := i.undo(ctx, back); err != nil {
		return err
	}
	i.log.Error("nlserver left the credential incomplete; it was put back as it was before", "path", i.cfg.File)
	return nil
}
