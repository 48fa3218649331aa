package sinks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sinks/sharedfile"
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

// Config names an instance and its places.
type Config struct {
	Name     string
	File     string // absolute path of config-<name>.xml
	StateDir string // of the daemon; holds the pre-image and the lock of a running nlserver
	NLServer *nlserver.Server
	Logger   *slog.Logger // nil discards
}

// Instance is one instance of Campaign. Its methods are called one at a time.
type Instance struct {
	cfg    Config
	log    *slog.Logger
	file   *sharedfile.File
	before preimage
	// several and many say that more than one <ims>, or too many attributes, were told of.
	several, many bool
	// unproved says that the last run of ours ended without proof, and that what it changed may still be in the file.
	unproved bool
}

// New prepares an Instance. It touches nothing.
func New(cfg Config) *Instance {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	log := cfg.Logger.With("instance", cfg.Name)
	return &Instance{
		cfg: cfg, log: log,
		file:   sharedfile.New(cfg.File, wellFormed, log),
		before: preimage{filepath.Join(cfg.StateDir, cfg.Name+".before")},
	}
}

func wellFormed(content []byte) error {
	_, err := imsxml.Parse(content)
	return err
}

// Wait returns when what Restore, Apply and Recover do aside is done, within 0.3 s where nobody is writing the file, or when ctx
// ends. None of them may be called meanwhile.
func (i *Instance) Wait(ctx context.Context) { i.file.Wait(ctx) }

// ChangedAt is the file's change time, which the kernel sets with every write, and with a rename of the file.
func (i *Instance) ChangedAt() time.Time { return i.file.ChangedAt() }

// Look returns the attributes of <ims> at a moment when nobody is writing the file.
func (i *Instance) Look(ctx context.Context) (credential.Attributes, error) {
	data, _, err := i.file.Read(ctx)
	if err != nil {
		return nil, err
	}
	document, err := i.scan(data)
	if err != nil {
		return nil, err
	}
	return document.Attributes(), nil
}

func (i *Instance) scan(data []byte) (*imsxml.Document, error) {
	document, err := imsxml.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.cfg.File, err)
	}
	if several := document.HasSeveralIMS(); several != i.several {
		i.several = several
		if several {
			i.log.Warn("there is more than one <ims> in <shared>; the first is kept right, which one counts is not known", "path", i.cfg.File)
		}
	}
	return document, nil
}

// Restore puts the wanted attributes back into the file as it is now, leaves every other byte, and returns the attributes
// that it found before, nil when it could not look. It takes one look, so it costs hardly more than Look where nothing differs.
func (i *Instance) Restore(ctx context.Context, wanted credential.Attributes) (found credential.Attributes, err error) {
	err = i.file.Update(ctx, i.splice(wanted, &found))
	return found, err
}

// splice is the merge that puts wanted back, and tells what it found.
func (i *Instance) splice(wanted credential.Attributes, found *credential.Attributes) sharedfile.Merge {
	return func(current []byte) ([]byte, error) {
		document, err := i.scan(current)
		if err != nil {
			return nil, err
		}
		now := append(credential.Attributes{}, document.Attributes()...) // not nil, which says that it could not look
		if len(credential.Drift(wanted, now)) == 0 {
			if *found == nil { // else drift was found before somebody else came first
				*found = now
			}
			return current, nil
		}
		*found = now
		next, err := document.Set(wanted)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.cfg.File, err)
		}
		// The last line of defence: what does not parse, or reads differently, never reaches the path.
		check, err := imsxml.Parse(next)
		if err != nil || len(credential.Drift(wanted, check.Attributes())) > 0 {
			return nil, fmt.Errorf("%w: %s: the spliced file does not read back", credential.ErrCannotSplice, i.cfg.File)
		}
		return next, nil
	}
}

// undo puts attributes back that a run of ours left half replaced.
func (i *Instance) undo(ctx context.Context, was credential.Attributes) error {
	var found credential.Attributes
	return i.file.Repair(ctx, i.splice(was, &found))
}

// Apply has nlserver write c, and proves it by reading the file again: client id and technical account id are those of
// c, and the secret is there and has changed, or the file was written. An exit status proves nothing.
func (i *Instance) Apply(ctx context.Context, c credential.Credential) (credential.Attributes, time.Duration, error) {
	if err := c.Check(); err != nil {
		return nil, 0, err
	}
	lock, err := i.lockRun()
	if err != nil {
		return nil, 0, err
	}
	defer lock.Close()
	before, stampBefore, err := i.file.Read(ctx)
	if err != nil {
		return nil, 0, err
	}
	documentBefore, err := i.scan(before)
	if err != nil {
		return nil, 0, err
	}
	ready, err := i.prepare(ctx, c, before)
	if err != nil {
		return nil, 0, err
	}
	ctx = context.WithoutCancel(ctx) // from here on, until the file is known to be whole
	i.unproved = true
	ran, runErr := ready.Run(ctx, lock)
	document, stampAfter, damage, err := i.putRight(ctx)
	if err != nil {
		return nil, ran.Took, errors.Join(runErr, err)
	}
	if damage != nil {
		i.unproved = false
		return nil, ran.Took, errors.Join(runErr, i.settled(), fmt.Errorf("nlserver left the file damaged, it was put back as it was: %w", damage))
	}
	written := stampBefore != stampAfter
	if err := prove(c, documentBefore.Attributes(), document.Attributes(), written, runErr != nil); err != nil {
		// What may have worked before must not stay half replaced. If this fails, Recover goes on with the pre-image.
		backErr := i.undo(ctx, asBefore(documentBefore.Attributes(), document.Attributes()))
		if backErr == nil {
			i.unproved = false
			backErr = i.settled()
		}
		if backErr != nil {
			err = errors.Join(err, backErr)
		}
		switch {
		case runErr != nil && !written:
			return nil, ran.Took, runErr
		case runErr != nil:
			return nil, ran.Took, fmt.Errorf("%w (afterwards, in %s, %w)", runErr, i.cfg.File, err)
		}
		return nil, ran.Took, fmt.Errorf("nlserver exited with status %d, but in %s %w; it said: %s", ran.ExitCode, i.cfg.File, err, ran.Output)
	}
	i.unproved = false
	if err := i.settled(); err != nil {
		return nil, ran.Took, err
	}
	if runErr != nil {
		i.log.Warn("nlserver complained, but the credential is in the file", "reason", runErr)
	}
	return i.managed(c, document.Attributes()), ran.Took, nil
}

// settled ends a run that wrote: the pre-image goes when what is at the path is on disk. nlserver and editors do not see to that, and
// after a power failure the file may be empty.
func (i *Instance) settled() error {
	if err := i.file.Sync(); err != nil {
		return err
	}
	return i.before.drop()
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

// prove tells what is missing from the proof that c was written. That the file was written is no proof where nlserver failed:
// somebody else may have written it.
func prove(c credential.Credential, before, after credential.Attributes, written, failed bool) error {
	for _, field := range []struct{ name, value string }{
		{attrClientID, c.ClientID},
		{attrAccountID, c.TechnicalAccountID},
	} {
		if got := after.Get(field.name); got.Absent || got.Value != field.value {
			return fmt.Errorf("%s is not the credential's", field.name)
		}
	}
	secret := after.Get(attrClientSecret)
	switch {
	case secret.Absent:
		return fmt.Errorf("%s is missing", attrClientSecret)
	case secret.Value == "":
		return fmt.Errorf("%s is empty", attrClientSecret)
	case secret.Same(before.Get(attrClientSecret)) && (!written || failed):
		return fmt.Errorf("nothing was written")
	}
	return nil
}

// documentedOf is how the documented attributes were, with those that were absent.
func documentedOf(seen credential.Attributes) credential.Attributes { return seen.Select(documented) }

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

// complete reports whether seen could be a credential that works: each part of it is there.
func complete(seen credential.Attributes) bool {
	for _, name := range []string{attrClientID, attrClientSecret, attrAccountID} {
		if seen.Get(name).Value == "" {
			return false
		}
	}
	return true
}

// mostLearned bounds what is learned: nlserver writes the org id to one attribute, or to none.
const mostLearned = 16

// managed picks the attributes to be kept from now on: the documented ones, also those that are absent, and any other
// that holds a field of the credential. Where nlserver writes the org id is not documented, so it is learned.
func (i *Instance) managed(c credential.Credential, after credential.Attributes) credential.Attributes {
	keep := documentedOf(after)
	fields := []string{c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal()}
	learned := 0
	for _, attribute := range after {
		if slices.Contains(documented, attribute.Name) || slices.Contains(othersAttributes, attribute.Name) ||
			!slices.Contains(fields, attribute.Value) {
			continue
		}
		if learned++; learned <= mostLearned {
			keep = append(keep, attribute)
		}
	}
	if learned > mostLearned && !i.many {
		i.many = true
		i.log.Warn("more attributes of <ims> hold a field of the credential than are guarded; only the first ones are",
			"path", i.cfg.File, "found", learned, "guarded", mostLearned)
	}
	return keep
}

// Changes names the attributes that an apply of c would change in a file that holds seen. What is encrypted cannot be
// compared, so it counts as changed.
func Changes(c credential.Credential, seen credential.Attributes) []string {
	var names []string
	for _, field := range []struct{ name, value string }{
		{attrClientID, c.ClientID},
		{attrAccountID, c.TechnicalAccountID},
	} {
		if got := seen.Get(field.name); got.Absent || got.Value != field.value {
			names = append(names, field.name)
		}
	}
	return append(names, attrClientSecret)
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
