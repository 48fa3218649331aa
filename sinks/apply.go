package sinks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/nlserver"
)

// The attributes of <ims> that carry the credential, as Adobe documents them.
const (
	attrClientID     = "authIMSTAClientId"
	attrClientSecret = "authIMSTAClientSecret"
	attrAccountID    = "authIMSTAId"
	attrPrivateKey   = "authIMSTAPrivateKey"
)

var documented = []string{attrClientID, attrClientSecret, attrAccountID, attrPrivateKey}

// othersAttributes belong to the login of people and are never managed, whatever they hold.
var othersAttributes = []string{"authIMSClientId", "authIMSClientSecret", "authIMSCode", "authIMSEndpoint"}

// Apply has nlserver write c, and proves it by reading the file again: client id and technical account id are those of
// c, and the secret is there and has changed, or the file was written. An exit status proves nothing. It returns the attributes to be
// guarded from now on, and how long nlserver took.
func (i *Instance) Apply(ctx context.Context, c credential.Credential) (credential.Attributes, time.Duration, error) {
	if err := c.Check(); err != nil {
		return nil, 0, err
	}
	lock, err := i.lockRun()
	if err != nil {
		return nil, 0, err
	}
	defer lock.Close()
	before, err := i.look(ctx)
	if err != nil {
		return nil, 0, err
	}
	ready, err := i.prepare(ctx, c, before.content)
	if err != nil {
		return nil, 0, err
	}
	ctx = context.WithoutCancel(ctx) // from here on, until the file is known to be whole
	i.unproved = true
	ran, runErr := ready.Run(ctx, lock)
	after, damage, err := i.putRight(ctx)
	if err != nil {
		return nil, ran.Took, errors.Join(runErr, err)
	}
	if damage != nil {
		i.unproved = false
		return nil, ran.Took, errors.Join(runErr, i.settled(), fmt.Errorf("nlserver left the file damaged, it was restored: %w", damage))
	}
	written := before.stamp != after.stamp
	if lack := prove(c, before.seen, after.seen, written, runErr != nil); lack != nil {
		lack = i.undoRun(ctx, before.seen, after.seen, lack)
		switch {
		case runErr == nil:
			lack = fmt.Errorf("nlserver exited with status %d, but in %s %w; it said: %s", ran.ExitCode, i.cfg.File, lack, ran.Output)
		case written:
			lack = fmt.Errorf("%w (afterwards, in %s, %w)", runErr, i.cfg.File, lack)
		default:
			lack = runErr
		}
		return nil, ran.Took, lack
	}
	i.unproved = false
	if err := i.settled(); err != nil {
		return nil, ran.Took, err
	}
	if runErr != nil {
		i.log.Warn("nlserver failed, but the credential is in the file", "reason", runErr)
	}
	return managed(c, after.seen), ran.Took, nil
}

// lockRun takes the lock that an nlserver of ours holds as long as it lives, also beyond the life of the daemon.
func (i *Instance) lockRun() (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(i.cfg.StateDir, i.cfg.Name+".nlserver.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of nlserver: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, credential.ErrStillRunning
		}
		return nil, fmt.Errorf("lock nlserver: %w", err)
	}
	return lock, nil
}

// prepare saves the file as it is and, as both take their milliseconds, readies nlserver meanwhile.
func (i *Instance) prepare(ctx context.Context, c credential.Credential, before []byte) (*nlserver.Ready, error) {
	saved := make(chan error, 1)
	go func() { saved <- i.before.save(before) }()
	ready, err := i.cfg.NLServer.Prepare(ctx, i.cfg.Name, c)
	if err = errors.Join(<-saved, err); err != nil {
		return nil, errors.Join(err, i.before.drop())
	}
	return ready, nil
}

// undoRun puts back what a run without proof may have changed: what worked before must not stay half replaced. If this fails,
// Recover goes on with the file saved before. It returns what was lacking, and why it could not put back.
func (i *Instance) undoRun(ctx context.Context, before, after credential.Attributes, lack error) error {
	err := i.undo(ctx, asBefore(before, after))
	if err == nil {
		i.unproved = false
		err = i.settled()
	}
	if err != nil {
		return errors.Join(lack, err)
	}
	return lack
}

// settled ends a run that wrote: the saved file goes when what is at the path is on disk. nlserver and editors do not see to that,
// and after a power failure the file may be empty.
func (i *Instance) settled() error {
	if err := i.file.Sync(); err != nil {
		return err
	}
	return i.before.drop()
}

// prove tells what is missing from the proof that c was written. That the file was written is no proof where nlserver failed:
// somebody else may have written it.
func prove(c credential.Credential, before, after credential.Attributes, written, failed bool) error {
	if wrong := wrongIDs(c, after); len(wrong) > 0 {
		return fmt.Errorf("%s is not the credential's", wrong[0])
	}
	secret := after.Get(attrClientSecret)
	switch {
	case secret.Absent:
		return fmt.Errorf("%s is missing", attrClientSecret)
	case secret.Value == "":
		return fmt.Errorf("%s is empty", attrClientSecret)
	case secret.Same(before.Get(attrClientSecret)) && (!written || failed):
		return errors.New("nothing was written")
	}
	return nil
}

// wrongIDs names the attributes that are there in clear and are not those of c.
func wrongIDs(c credential.Credential, seen credential.Attributes) []string {
	wanted := credential.Attributes{{Name: attrClientID, Value: c.ClientID}, {Name: attrAccountID, Value: c.TechnicalAccountID}}
	return credential.Drift(wanted, seen)
}

// Changes names the attributes that an apply of c would change in a file that holds seen. What is encrypted cannot be
// compared, so it counts as changed.
func Changes(c credential.Credential, seen credential.Attributes) []string {
	return append(wrongIDs(c, seen), attrClientSecret)
}

// asBefore is how all attributes were that a run may have changed: those that are there, those that were, and those that
// were documented and absent. What belongs to the login of people is left out.
func asBefore(before, after credential.Attributes) credential.Attributes {
	names := slices.Clone(documented)
	known := map[string]bool{}
	for _, name := range slices.Concat(documented, othersAttributes) {
		known[name] = true
	}
	for _, name := range append(before.Names(), after.Names()...) {
		if !known[name] {
			known[name] = true
			names = append(names, name)
		}
	}
	return before.Select(names)
}

// managed picks the attributes to be kept from now on: the documented ones, also those that are absent, and any other
// that holds a field of the credential. Where nlserver writes the org id is not documented, so it is learned.
func managed(c credential.Credential, after credential.Attributes) credential.Attributes {
	keep := after.Select(documented)
	fields := []string{c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal()}
	known := slices.Concat(documented, othersAttributes)
	for _, attribute := range after {
		if !slices.Contains(known, attribute.Name) && slices.Contains(fields, attribute.Value) {
			keep = append(keep, attribute)
		}
	}
	return keep
}
