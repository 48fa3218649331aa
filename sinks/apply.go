package sinks

import (
	"cmp"
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
	attrPrivateKey   = credential.AttributePrivateKey
)

var documented = []string{attrClientID, attrClientSecret, attrAccountID, attrPrivateKey}

// othersAttributes belong to the login of people and are never managed, whatever they hold.
var othersAttributes = []string{"authIMSClientId", "authIMSClientSecret", "authIMSCode", "authIMSEndpoint"}

// Apply has nlserver write c, and proves it by reading the file again: client id and technical account id are those of
// c, and the secret is there and has changed, or the file was written. An exit status proves nothing. What may not be there afterwards are
// the attributes of an apply of another secret (nil: none are known). It returns the attributes to be guarded from now on, and how long
// nlserver took.
func (i *Instance) Apply(ctx context.Context, c credential.Credential, others credential.Attributes) (credential.Attributes, time.Duration, error) {
	lock, err := i.lockRun()
	if err != nil {
		return nil, 0, err
	}
	defer lock.Close()
	run, err := i.cfg.NLServer.Prepare(ctx, i.cfg.Name, c)
	if err != nil {
		return nil, 0, err
	}
	before, err := i.look(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := i.checkMix(ctx, c, before.seen); err != nil {
		return nil, 0, err
	}
	if err := i.saveFile(before.content); err != nil {
		return nil, 0, fmt.Errorf("save the configuration before it is written: %w", err)
	}
	asked := ctx
	ctx = context.WithoutCancel(ctx) // from here on, until the file is known to be whole
	i.unproved = true
	said, took, runErr := run(ctx, lock)
	after, damage, err := i.repair(ctx, before.content)
	if err != nil {
		return nil, took, errors.Join(runErr, err)
	}
	lack := cmp.Or(damage, prove(c, others, before.seen, after.seen, before.stamp != after.stamp, runErr != nil))
	var livesOn error
	if lack != nil { // what nlserver has started may be about to write
		if lock, livesOn = i.awaitRun(asked, lock, lateGrace); livesOn == nil {
			defer lock.Close()
		}
		again, damage, err := i.repair(ctx, before.content)
		if err != nil {
			return nil, took, errors.Join(runErr, err)
		}
		if again.stamp != after.stamp {
			after = again
			lack = cmp.Or(damage, prove(c, others, before.seen, after.seen, true, runErr != nil))
		}
	}
	if lack == nil {
		if err := i.endRun(); err != nil {
			return nil, took, err
		}
		if runErr != nil {
			i.log.Warn("nlserver failed, but the credential is in the file", "reason", runErr)
		}
		return i.guardedAfter(c, after.seen), took, nil
	}
	if runErr == nil {
		runErr = fmt.Errorf("nlserver exited with status 0 and said: %s", said)
	}
	lack = fmt.Errorf("%w; afterwards, in %s: %w", runErr, i.cfg.File, lack)
	was := asBefore(before.seen, after.seen)
	if errors.Is(lack, errOtherSecret) { // it works, and may be whole again only now
		was = nil
	}
	return nil, took, errors.Join(lack, i.undoRun(ctx, was, livesOn == nil))
}

// checkMix refuses to write a credential without a private key beside the key of another one. Only the option for OAuth credentials is
// meant for that; the older ones would leave half of a JWT credential.
func (i *Instance) checkMix(ctx context.Context, c credential.Credential, seen credential.Attributes) error {
	if !c.PrivateKey.IsZero() || !seen.HasPrivateKey() {
		return nil
	}
	option, err := i.cfg.NLServer.Option(ctx)
	if err == nil && option != nlserver.CommandOAuth {
		err = credential.NeedsOperator(fmt.Errorf("the file holds a JWT credential (%s), and -%s cannot replace it by an OAuth credential; "+
			"remove campaign.command, where it is set, and update Campaign to 7.4.1 build 9383 or later", attrPrivateKey, option))
	}
	return err
}

// lateGrace is how long an apply without proof waits for what nlserver has started and left behind.
const lateGrace = 5 * time.Second

// lockRun takes the lock that an nlserver of ours holds as long as it lives, also beyond the life of the daemon.
func (i *Instance) lockRun() (*os.File, error) { return i.lockRunOf(i.cfg.Name) }

// lockRunOf takes that of the instance of this name.
func (i *Instance) lockRunOf(name string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(i.cfg.StateDir, name+".nlserver.lock"), os.O_RDWR|os.O_CREATE, 0o600)
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

// errOtherSecret says that the file shows what an apply of another secret left: two secrets are never encrypted alike.
var errOtherSecret = errors.New("the file holds the secret that was applied before: nlserver wrote nothing, or another program wrote over it")

// prove tells what is missing from the proof that c was written. That the file was written is no proof where nlserver failed:
// somebody else may have written it.
func prove(c credential.Credential, others, before, after credential.Attributes, written, failed bool) error {
	if wrong := wrongIDs(c, after); len(wrong) > 0 {
		return fmt.Errorf("%s is not the credential's", wrong[0])
	}
	secret, inClear := after.Get(attrClientSecret), attributeInClear(c, before, after)
	switch {
	case secret.Value == "":
		return fmt.Errorf("%s is empty or missing", attrClientSecret)
	case inClear != "":
		return fmt.Errorf("%s holds a secret in clear: nlserver did not encrypt it", inClear)
	case secret.Same(before.Get(attrClientSecret)) && (!written || failed):
		return errors.New("nothing was written")
	case len(others) > 0 && len(credential.Drift(others, after)) == 0:
		return errOtherSecret
	}
	return nil
}

// attributeInClear names an attribute that holds a secret of c as it is. The record of an apply would show it, as the file does.
// What nlserver did not write, in an attribute that is never recorded, is somebody else's.
func attributeInClear(c credential.Credential, before, after credential.Attributes) string {
	key, err := nlserver.KeyArgument(c.PrivateKey)
	if err != nil { // then nlserver was not handed it
		key = ""
	}
	was := before.Select(after.Names())
	for i, a := range after {
		if a.Same(was[i]) && !slices.Contains(documented, a.Name) {
			continue
		}
		if a.Value != "" && slices.Contains([]string{c.ClientSecret.Reveal(), c.PrivateKey.Reveal(), key}, a.Value) {
			return a.Name
		}
	}
	return ""
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
	names := slices.Concat(documented, before.Names(), after.Names())
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return slices.Contains(othersAttributes, name) })
	return before.Select(names)
}

// mostLearned bounds what is learned: nlserver writes the org id to one attribute, or to none.
const mostLearned = 16

// Managed picks the attributes to be guarded where nobody knows the credential: the documented ones, also those that are absent.
// isComplete says that they make a credential.
func (i *Instance) Managed(seen credential.Attributes) (managed credential.Attributes, isComplete bool) {
	if !complete(seen) {
		return nil, false
	}
	return seen.Select(documented), true
}

// WrongIDs names the attributes that are there in clear and are not those of c.
func (i *Instance) WrongIDs(c credential.Credential, seen credential.Attributes) []string {
	return wrongIDs(c, seen)
}

// guardedAfter picks the attributes to be kept from now on: the documented ones, also those that are absent, and any other
// that holds a field of the credential. Where nlserver writes the org id is not documented, so it is learned.
func (i *Instance) guardedAfter(c credential.Credential, after credential.Attributes) credential.Attributes {
	fields := []string{c.OrgID, c.ClientID, c.TechnicalAccountID} // a secret in clear is no proof, see prove
	known := slices.Concat(documented, othersAttributes)
	var learned credential.Attributes
	for _, attribute := range after {
		if !slices.Contains(known, attribute.Name) && slices.Contains(fields, attribute.Value) {
			learned = append(learned, attribute)
		}
	}
	if len(learned) > mostLearned {
		i.log.Warn("more attributes of <ims> hold a field of the credential than are guarded; only the first ones are",
			"path", i.cfg.File, "found", len(learned), "guarded", mostLearned,
			"remedy", "find who puts them there; a change of the others is not noticed")
		learned = learned[:mostLearned]
	}
	return append(after.Select(documented), learned...)
}
