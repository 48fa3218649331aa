// Package sinks writes credentials into one instance of Adobe Campaign Classic v7: through nlserver, which encrypts them, and, to
// put drift back, straight into the instance's configuration file.
//
// That file belongs to others. It also holds the database login, people edit it by hand, and nlserver itself rewrites it in
// place. So no byte outside the managed attributes is changed, no update of another writer is lost, the file is never created, and
// never replaced by something that does not parse. What cannot be done that way is not done: the caller is told and may let
// nlserver do it. No exit-code contract of nlserver is public, so success is proved by reading the file again.
package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sinks/sharedfile"
)

// Config names an instance and its places.
type Config struct {
	Name     string
	File     string // absolute path of config-<name>.xml
	StateDir string // of the daemon; holds the file as it was before nlserver ran, or a survey, and the lock of a running nlserver
	NLServer *nlserver.Binary
	Logger   *slog.Logger
}

// Instance is one instance of Campaign. Its methods are called one at a time.
type Instance struct {
	cfg  Config
	log  *slog.Logger
	file *sharedfile.File
	// saved is the path of the file as it was before a run of nlserver that writes. It exists while one runs, and after one whose end
	// nobody saw.
	saved string
	// savedOf is the path of a file that names the one that was saved. It is there before saved is; where it is missing, saved is of
	// cfg.File, as an older release wrote it.
	savedOf string
	// trial is the path of what undoes a run with a credential that was made up. It exists as saved does.
	trial string
	// unproved says that the last run of ours ended without proof, and that what it changed may still be in the file.
	unproved bool
}

// New prepares an Instance. It touches nothing.
func New(cfg Config) *Instance {
	log := cfg.Logger.With("instance", cfg.Name)
	return &Instance{
		cfg: cfg, log: log,
		file:    sharedfile.New(cfg.File, wellFormed, log),
		saved:   filepath.Join(cfg.StateDir, cfg.Name+".before"),
		savedOf: filepath.Join(cfg.StateDir, cfg.Name+".before.path"),
		trial:   filepath.Join(cfg.StateDir, cfg.Name+".survey"),
	}
}

func wellFormed(content []byte) error {
	_, err := imsxml.Parse(content)
	return err
}

// Look returns the attributes of <ims> at a moment when nobody is writing the file.
func (i *Instance) Look(ctx context.Context) (credential.Attributes, error) {
	now, err := i.look(ctx)
	return now.seen, err
}

// state is what one read of the file showed.
type state struct {
	content []byte
	stamp   sharedfile.Stamp
	seen    credential.Attributes
}

func (i *Instance) look(ctx context.Context) (now state, err error) {
	if now.content, now.stamp, err = i.file.Read(ctx); err != nil {
		return now, err
	}
	document, err := imsxml.Parse(now.content)
	if err != nil {
		return now, fmt.Errorf("%s: %w", i.cfg.File, err)
	}
	now.seen = document.Attributes()
	return now, nil
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
		document, err := imsxml.Parse(current)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.cfg.File, err)
		}
		now := append(credential.Attributes{}, document.Attributes()...) // not nil, which says that it could not look
		if *found == nil || len(credential.Drift(wanted, now)) > 0 {     // drift that was found stays found when somebody else came first
			*found = now
		}
		next, err := document.Set(wanted)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.cfg.File, err)
		}
		return next, nil
	}
}

// ChangedAt is the file's change time, which the kernel sets with every write, and with a rename of the file.
func (i *Instance) ChangedAt() time.Time { return i.file.ChangedAt() }

// Owner is the file's owner, by name where there is one. Empty: there is no file.
func (i *Instance) Owner() string {
	info, err := os.Stat(i.cfg.File)
	if err != nil {
		return ""
	}
	uid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid)) // always that on Linux
	if owner, err := user.LookupId(uid); err == nil {
		return owner.Username
	}
	return uid
}

// Wait returns when what Restore, Apply and Recover do aside is done, within 0.3 s where nobody is writing the file, or when ctx
// ends. None of them may be called meanwhile.
func (i *Instance) Wait(ctx context.Context) { i.file.Wait(ctx) }
