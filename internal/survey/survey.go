// Package survey asks a real nlserver, on a test instance, what no test of this project can know: how it writes the instance's file, what
// it prints, how it ends, where a restarted module runs. It compares the answers with what the stand-in assumes.
//
// Each run that may write is a trial of package sinks: with a credential that was made up, and undone at once. So no module ever reads
// that credential, unless somebody restarts one in those seconds. No value gets into a report.
package survey

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
	"campaign-credsync/sinks/nlserver"
)

// Config tells what is surveyed. Nobody else uses Sink and NLServer meanwhile.
type Config struct {
	Instance string
	File     string // of the instance
	Home     string // of Campaign
	Sink     *sinks.Instance
	NLServer *nlserver.Binary
	Restarts []credential.Step // of the modules that are restarted, once or twice
	Timeout  time.Duration     // of one run of nlserver
	Version  string            // of this program
	Logger   *slog.Logger
}

// survey is one that is under way.
type survey struct {
	Config
	report Report
	fields credential.Credential // made up
	option string
}

// Run asks everything. The error says that it could not. One that wraps [sinks.ErrChangedInTrial] says that the file is not as before; the
// report then has what was found until then. A process of nlserver's that outlives its run is waited for. When ctx ends, Run ends within the time that an nlserver takes to stop.
func Run(ctx context.Context, c Config) (Report, error) {
	s := &survey{Config: c, fields: madeUp()}
	s.report = Report{Instance: c.Instance, MadeAt: time.Now().UTC(), Daemon: c.Version}
	s.report.Observed.TookMillis = map[string]float64{}
	s.report.Assumptions.Calls = map[string]Call{}
	if err := s.recover(ctx); err != nil {
		return s.report, err
	}
	for _, ask := range []func(context.Context) error{s.askOptions, s.askWrongInstance, s.askTooFewFields, s.askSet, s.askReload, s.askRestarts} {
		if err := ask(ctx); err != nil {
			if errors.Is(err, credential.ErrStillRunning) {
				err = errors.Join(err, s.recover(ctx))
			}
			if errors.Is(err, sinks.ErrChangedInTrial) { // what was found so far may say why
				s.report.conclude()
			}
			return s.report, err
		}
	}
	s.report.FileAsBefore = true
	s.report.conclude()
	return s.report, nil
}

// madeUp is a credential of the usual shape that nobody has.
func madeUp() credential.Credential {
	digits := func(n int) string {
		random := make([]byte, n/2)
		rand.Read(random) // never fails
		return hex.EncodeToString(random)
	}
	return credential.Credential{
		OrgID:              strings.ToUpper(digits(24)) + "@AdobeOrg",
		ClientID:           digits(32),
		TechnicalAccountID: strings.ToUpper(digits(24)) + "@techacct.adobe.com",
		ClientSecret:       credential.NewSecret("p8e-" + (rand.Text() + rand.Text())[:32]),
	}
}

// recover undoes what an earlier survey, or a daemon, left. It waits for an nlserver that outlived them.
func (s *survey) recover(ctx context.Context) error {
	for deadline := time.Now().Add(s.Timeout); ; {
		err := s.Sink.Recover(ctx)
		if !errors.Is(err, credential.ErrStillRunning) || time.Now().After(deadline) {
			return err
		}
		s.Logger.Info("waiting for an nlserver that was started earlier")
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *survey) askOptions(ctx context.Context) error {
	answer, err := s.NLServer.Ask(ctx, s.Instance, []string{"config", "-?"}, nil)
	if err != nil {
		return err
	}
	s.note(callOptions, answer, "unchanged")
	o := &s.report.Observed
	o.Version, o.Build, o.Options = answer.Version, answer.Build, append([]string{}, answer.Options...)
	s.report.Assumptions.Options = slices.DeleteFunc(slices.Clone(answer.Options), func(name string) bool { return !strings.HasPrefix(name, "setims") })
	slices.Sort(s.report.Assumptions.Options)
	if s.option, err = s.NLServer.Option(ctx); err != nil {
		s.option, o.Note = "setimsoauth", "config -? lists no option that sets a credential; setimsoauth was tried all the same"
	}
	return ctx.Err()
}

// note keeps an answer.
func (s *survey) note(call string, a nlserver.Answer, file string) {
	prints := a.Lines
	if call == callOptions {
		prints = nil
	}
	s.report.Assumptions.Calls[call] = Call{Ended: a.Ended, File: file, Prints: prints}
	s.report.Observed.TookMillis[call] = millis(a.Took)
	if a.Database {
		s.report.Assumptions.Database = "mentioned"
	}
}

func (s *survey) askWrongInstance(ctx context.Context) error {
	none := "credsync" + strings.ToLower(rand.Text()[:12])
	_, err := s.try(ctx, callWrongInstance, none, 4, filepath.Join(s.Home, "conf", "config-"+none+".xml"))
	return err
}

func (s *survey) askTooFewFields(ctx context.Context) error {
	_, err := s.try(ctx, callTooFewFields, s.Instance, 2, "")
	return err
}

// tried is what a trial showed.
type tried struct {
	before, after []byte
	writing       Writing
}

// try runs nlserver with the first fields of the credential, and undoes that.
func (s *survey) try(ctx context.Context, call, instance string, fields int, creates string) (t tried, err error) {
	if ctx.Err() != nil {
		return t, context.Cause(ctx)
	}
	c := s.fields
	all := []string{c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal()}
	args := []string{"config", "-instance:" + instance, "-" + s.option + ":" + strings.Join(all[:fields], "/")}
	var answer nlserver.Answer
	var runErr error
	s.Logger.Info("nlserver is run with a credential that was made up", "step", call)
	t.before, t.after, err = s.Sink.Try(ctx, sinks.Trial{Credential: c, Creates: creates, Run: func(lock *os.File) {
		var w *watch
		if w, runErr = startWatch(s.File); runErr != nil {
			return
		}
		answer, runErr = s.NLServer.Ask(ctx, instance, args, lock, c.ClientSecret)
		t.writing = w.end()
	}})
	s.Sink.Wait(context.WithoutCancel(ctx)) // until our own copies beside the file are gone
	if err = errors.Join(runErr, err); err != nil {
		err = fmt.Errorf("%s: %w", called[call], err)
	}
	if err != nil && (runErr != nil || !errors.Is(err, sinks.ErrChangedInTrial)) {
		return t, err
	}
	s.note(call, answer, fileState(t.before, t.after))
	for _, name := range t.writing.OtherNames {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(s.File), name)); err == nil {
			s.report.Observed.Left = append(s.report.Observed.Left, name)
			s.Logger.Warn("something is left beside the configuration file, perhaps by nlserver", "path", filepath.Join(filepath.Dir(s.File), name),
				"remedy", "look at it and remove it")
		}
	}
	if len(t.writing.OtherNames) > 0 && call != callSet {
		s.report.Observed.Created = append(s.report.Observed.Created, t.writing.OtherNames...)
	}
	return t, err
}

func fileState(before, after []byte) string {
	switch {
	case bytes.Equal(before, after):
		return "unchanged"
	case isDamaged(after):
		return "damaged"
	}
	return "written"
}

// askSet sets the same credential twice, each time from the same file.
func (s *survey) askSet(ctx context.Context) error {
	t, err := s.try(ctx, callSet, s.Instance, 4, "")
	if err != nil && !errors.Is(err, sinks.ErrChangedInTrial) {
		return err
	}
	a, o := &s.report.Assumptions, &s.report.Observed
	a.Write, o.Writing = t.writing.how(!bytes.Equal(t.before, t.after)), t.writing
	if a.Calls[callSet].File != "written" {
		return err
	}
	first := s.compareFiles(t)
	a.Attributes, o.Shapes, a.Form = first.attributes, first.shapes, first.form
	if err != nil {
		return err
	}
	set, took := a.Calls[callSet], o.TookMillis[callSet]
	if t, err = s.try(ctx, callSet, s.Instance, 4, ""); err != nil {
		return err
	}
	again := a.Calls[callSet]
	o.TookMillis["set again"] = o.TookMillis[callSet]
	a.Calls[callSet], o.TookMillis[callSet] = set, took
	if again.Ended != set.Ended || again.File != set.File {
		o.Note = strings.TrimSpace(fmt.Sprintf("%s the second set ended otherwise: %s, %s", o.Note, again.Ended, again.File))
	}
	if again.File == "written" {
		a.Encryption = encryption(first, s.compareFiles(t))
	}
	return nil
}

func (s *survey) askReload(ctx context.Context) error {
	answer, err := s.NLServer.Ask(ctx, s.Instance, []string{"config", "-reload"}, nil)
	if err != nil {
		return fmt.Errorf("config -reload: %w", err)
	}
	s.note(callReload, answer, "unchanged")
	return nil
}

// askRestarts restarts the modules. The file is as before, so they read what they read before.
func (s *survey) askRestarts(ctx context.Context) error {
	s.NLServer.Retry() // a restart that failed for a daemon is tried all the same
	for _, step := range s.Restarts {
		mark := "CAMPAIGN_CREDSYNC_SURVEY=" + rand.Text()
		s.Logger.Info("module is restarted", "step", step.String())
		before := processes()
		answer, err := s.NLServer.AskRestart(ctx, step.Module, s.Instance, mark)
		if err != nil {
			return err
		}
		m := Module{Name: step.Module, Ended: answer.Ended, TookMillis: millis(answer.Took)}
		m.find(ctx, s.Home, mark, before)
		if m.HoldsOutput && m.Ended != "timeout" { // which would keep memory of the survey for as long as it runs
			if _, err := s.NLServer.Activate(ctx, step, time.Now()); err != nil {
				return fmt.Errorf("restart of a module that kept the output of its restart: %w", err)
			}
		}
		if s.report.Observed.Modules = append(s.report.Observed.Modules, m); len(s.report.Observed.Modules) == 1 {
			s.note(callRestart, answer, "unchanged")
			s.report.Assumptions.Module = m.Runs
		}
	}
	return ctx.Err()
}
