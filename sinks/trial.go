package sinks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/sinks/sharedfile"
)

// Trial is a run of nlserver with a credential that was made up for it, and whose effect on the instance's file is undone.
type Trial struct {
	Credential credential.Credential
	// Creates is the absolute path of a file that the run may create and nobody else has. It is removed. Empty: none.
	Creates string
	// Run runs nlserver, which inherits lock. It is called once.
	Run func(lock *os.File)
}

// Try carries out a trial. It returns the file as it was, and as the run left it, which need not be well-formed. The file is saved before
// the run, and afterwards it is as before, byte for byte, also where ctx has ended meanwhile. After a crash Recover sees to that.
//
// What somebody else changed meanwhile stays: then the error wraps [ErrChangedInTrial]. Where a process of the run lives on, and may write
// later, it wraps [credential.ErrStillRunning]: Recover puts the file back once more when that process has ended.
func (i *Instance) Try(ctx context.Context, t Trial) (before, after []byte, err error) {
	lock, err := i.lockRun()
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	now, err := i.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	record := trialRecord{File: i.path(), Content: now.content, ClientID: t.Credential.ClientID, AccountID: t.Credential.TechnicalAccountID, OrgID: t.Credential.OrgID, Creates: t.Creates}
	if record.Rights, err = i.file.Rights(); err != nil {
		return nil, nil, err
	}
	record.Link, _ = os.Readlink(i.cfg.File)
	data, err := json.Marshal(record)
	if err == nil {
		err = durable.WriteFile(i.trial, data)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("save the configuration before it is written: %w", err)
	}
	t.Run(lock)
	ctx = context.WithoutCancel(ctx)
	// Before the file is put back: who has ended by then writes nothing afterwards.
	lock, livesOn := i.awaitRun(ctx, lock, runGrace)
	if livesOn == nil {
		defer lock.Close()
	}
	after, _, err = i.file.Read(ctx)
	return now.content, after, errors.Join(livesOn, err, i.undoTrial(ctx, record, livesOn == nil))
}

// runGrace is how long what a trial's run started is given to end after it.
const runGrace = time.Second

// awaitRun takes the lock of a run anew, which fails with credential.ErrStillRunning if a process that has inherited it outlives limit, or
// ctx.
func (i *Instance) awaitRun(ctx context.Context, inherited *os.File, limit time.Duration) (lock *os.File, err error) {
	inherited.Close()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		lock, err = i.lockRun()
		if !errors.Is(err, credential.ErrStillRunning) || time.Now().After(deadline) || ctx.Err() != nil {
			return lock, err
		}
	}
}

// trialRecord is on disk as long as what a trial did to the file may not be undone.
type trialRecord struct {
	File      string            `json:"file,omitempty"` // whose content it is; empty in old records: the configured one
	Content   []byte            `json:"content"`        // of the file before
	Rights    sharedfile.Rights `json:"rights"`         // of the file before
	Link      string            `json:"link"`           // what the path led to, if it was a symbolic link
	OrgID     string            `json:"org_id"`         // that was made up for the trial, as the next two
	ClientID  string            `json:"client_id"`
	AccountID string            `json:"technical_account_id"`
	Creates   string            `json:"creates,omitempty"`
}

// ErrChangedInTrial says that the file is not as it was before a trial, as somebody else changed it meanwhile.
var ErrChangedInTrial = errors.New("the file was changed by somebody else during the survey, or by nlserver beyond its form")

// recoverTrial undoes what a killed survey left. The caller has the lock.
func (i *Instance) recoverTrial(ctx context.Context) error {
	data, err := regularfile.Read(i.trial, 2*sharedfile.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var record trialRecord
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err != nil {
		return fmt.Errorf("read what a survey saved, %s: %w", i.trial, err)
	}
	if record.File != "" && record.File != i.path() {
		return i.setAside(i.trial, record.File)
	}
	switch err = i.undoTrial(ctx, record, true); {
	case err == nil:
		i.log.Warn("a survey was interrupted; the configuration file is as before it", "path", i.cfg.File,
			"remedy", "restart modules that were started meanwhile")
	case errors.Is(err, ErrChangedInTrial):
		i.log.Error("a survey was interrupted", "path", i.cfg.File, "reason", err)
		err = nil
	}
	return err
}

// undoTrial has the file be as before a trial. The record of that stays unless everything is done for good.
func (i *Instance) undoTrial(ctx context.Context, record trialRecord, forGood bool) error {
	notRemoved := record.removeCreated()
	changed, err := i.putBack(ctx, record)
	if err == nil && notRemoved == nil && forGood {
		err = os.Remove(i.trial)
	}
	switch {
	case err != nil:
		return fmt.Errorf("put the file back as it was before the survey: %w", err)
	case notRemoved != nil:
		return fmt.Errorf("remove what nlserver created: %w", notRemoved)
	case len(changed) > 0:
		return fmt.Errorf("%w: %s: %s", ErrChangedInTrial, i.cfg.File, strings.Join(changed, "; "))
	}
	return nil
}

func (r trialRecord) removeCreated() error {
	if r.Creates == "" {
		return nil
	}
	if err := os.Remove(r.Creates); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// putBack puts rights and content back, for good, and tells what is not as before all the same.
func (i *Instance) putBack(ctx context.Context, record trialRecord) (changed []string, err error) {
	if err := i.file.RestoreRights(record.Rights); err != nil { // the content comes back whatever becomes of them
		changed = append(changed, "its rights are not those from before: "+err.Error())
	}
	differs := ""
	err = i.file.Repair(ctx, func(current []byte) (next []byte, err error) {
		next, differs, err = record.undone(current)
		return next, err
	})
	if err == nil {
		err = i.file.Sync()
	}
	if err == nil && differs != "" {
		kept := filepath.Join(i.cfg.StateDir, i.cfg.Name+".survey-original.xml")
		err = durable.WriteFile(kept, record.Content)
		changed = slices.Insert(changed, 0, differs, kept+" has the file from before: compare the two, and remove it")
	}
	if link, _ := os.Readlink(i.cfg.File); link != record.Link {
		changed = append(changed, fmt.Sprintf("it was a symbolic link to %q, which nlserver replaced: compare the two, and link it again", record.Link))
	}
	return changed, err
}

// undone is the content that undoes a trial, and what is changed in it all the same. What is only in another form is taken for nlserver's.
func (r trialRecord) undone(current []byte) (next []byte, changed string, err error) {
	if bytes.Equal(current, r.Content) {
		return current, "", nil
	}
	document, err := imsxml.Parse(current)
	if isDamage(cmp.Or(err, keepsPlace(current, r.Content))) { // nobody has it open, so it is nlserver that left it so
		return r.Content, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	was, err := imsxml.Parse(r.Content)
	if err != nil {
		return nil, "", err
	}
	seen := document.Attributes()
	wanted := r.asBefore(was.Attributes(), seen)
	if len(credential.Drift(wanted, seen)) > 0 && !r.isOurs(seen) && (complete(seen) || !complete(was.Attributes())) {
		return current, "it holds another credential, which is kept", nil
	}
	if next, err = document.Set(wanted); err != nil {
		return nil, "", err
	}
	if bytes.Equal(next, r.Content) || imsxml.Same(next, r.Content) {
		return r.Content, "", nil
	}
	return next, "the credential is the one from before, the rest is as it was found", nil
}

// isOurs reports whether one of the attributes holds a field of the trial's credential.
func (r trialRecord) isOurs(seen credential.Attributes) bool {
	return slices.ContainsFunc(seen, r.holds)
}

func (r trialRecord) holds(a credential.Attribute) bool {
	return a.Value != "" && slices.Contains([]string{r.OrgID, r.ClientID, r.AccountID}, a.Value)
}

// asBefore adds those of the login of people that the run has written.
func (r trialRecord) asBefore(was, now credential.Attributes) credential.Attributes {
	wanted := asBefore(was, now)
	for _, name := range othersAttributes {
		if r.holds(now.Get(name)) {
			wanted = append(wanted, was.Get(name))
		}
	}
	return wanted
}
