package assembly

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/history"
	"campaign-credsync/internal/hook"
	"campaign-credsync/internal/web"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// inForce is the configuration in force. It is a value; nothing in it is changed later.
type inForce struct {
	assembly *assembly
	hook     *hook.Hook
	at       time.Time
	rejected string // why the file as it is now is not
}

// loaded puts the configuration of an assembly in force. A program of notify.exec that stays is not told anew that it fails.
func (p *process) loaded(a *assembly) {
	for _, in := range a.settings.Instances {
		a.nlserver.Expect(in.Name, in.Steps)
	}
	before, c := p.current.Load(), a.config.Notify
	now := &inForce{assembly: a, at: time.Now()}
	if before != nil && reflect.DeepEqual(c, before.assembly.config.Notify) {
		now.hook = before.hook
	} else {
		now.hook = hook.Open(hook.Config{Command: c.Exec, Timeout: c.Timeout, Env: hookEnv(), Logger: p.Logger, Meter: p.meter})
	}
	p.current.Store(now)
	if before == nil {
		p.tell(event.Event{Kind: event.Started, Text: "version " + p.Version})
		return
	}
	p.tell(event.Event{Kind: event.Reloaded})
	if now.hook != before.hook {
		p.closing.Go(func() { before.hook.Close(closeTime) })
	}
}

// close tells of the end, and waits no longer than closeTime for those who are told.
func (p *process) close() {
	p.tell(event.Event{Kind: event.Stopped})
	p.closing.Go(func() { p.current.Load().hook.Close(closeTime) })
	p.closing.Go(func() { p.history.Close(closeTime) })
	p.closing.Wait()
}

// showEnd tells once that the secret-id ends soon. It is called with the lock of the daemon held.
func (p *process) showEnd(a *assembly) {
	if end, soon := a.secretIDEnd(); soon && !end.Equal(p.toldEnd) {
		p.toldEnd = end
		p.tell(event.Event{Kind: event.SecretIDExpiring, Text: a.wordsOfEnd(end)})
	}
}

// secretIDEnd is when the secret-id ends, and whether that is soon. Zero: not known, or never.
func (a *assembly) secretIDEnd() (end time.Time, soon bool) {
	if a.vault == nil {
		return time.Time{}, false
	}
	end = a.vault.SecretIDEnds()
	return end, !end.IsZero() && time.Until(end) < a.config.Vault.Auth.SecretIDWarn
}

func (a *assembly) wordsOfEnd(end time.Time) string {
	file := a.config.Vault.Auth.SecretIDFile
	remedy := "; put a new one in " + file
	if strings.HasPrefix(file, "/run/credentials/") { // systemd's copy, which nobody may write
		remedy = "; put a new one where LoadCredential= of the unit takes it from, and restart the daemon"
	}
	at := end.UTC().Format(time.RFC3339)
	if time.Now().After(end) {
		return "the secret-id ended " + at + remedy
	}
	return "the secret-id ends " + at + remedy + " before"
}

// hookEnv is the environment of the program of notify.exec: nothing of the daemon's that may be secret.
func hookEnv() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "LANG", "TZ"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// rejected keeps the configuration in force and says why.
func (p *process) rejected(err error) {
	now := *p.current.Load()
	now.rejected = credential.OneLine(err.Error())
	p.current.Store(&now)
	p.Logger.Error("configuration not reloaded, keeping the old one", "reason", err, "remedy", "correct the file and reload, or restart the daemon where the reason says so")
	p.tell(event.Event{Kind: event.ReloadRejected, Text: now.rejected})
}

// tell has an event in the history, and the program of notify.exec told of it.
func (p *process) tell(e event.Event) {
	e = stamped(e)
	p.history.Append(e)
	if now := p.current.Load(); now != nil && len(now.assembly.config.Notify.Exec) > 0 {
		now.hook.Tell(e)
	}
}

// stamped fills in where an event happened, and when, unless it says so itself.
func stamped(e event.Event) event.Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Host, _ = os.Hostname()
	return e
}

// process is a control.Daemon.

// Ping returns nil when the daemon is alive.
func (p *process) Ping(ctx context.Context) error {
	if now := p.current.Load(); now != nil {
		return now.assembly.daemon.Ping(ctx)
	}
	return nil
}

// Status is what is known now; nothing before the first assembly runs.
func (p *process) Status() control.Status {
	now := p.current.Load()
	if now == nil {
		return control.Status{}
	}
	return p.document(now, now.assembly.daemon.Status())
}

// Do carries out an order.
func (p *process) Do(ctx context.Context, o control.Order) (control.Status, error) {
	now := p.current.Load()
	err := now.assembly.do(ctx, o)
	return p.document(now, now.assembly.daemon.Status()), err
}

// The bounds of a pause, and what they are for people.
const (
	minPause    = time.Minute
	maxPause    = 168 * time.Hour
	PauseBounds = "from 1m to 168h"
)

// CheckPause refuses a pause that is too short or too long.
func CheckPause(length time.Duration) error {
	if length < minPause || length > maxPause {
		return fmt.Errorf("a pause lasts %s, and not %v", PauseBounds, length)
	}
	return nil
}

func (a *assembly) do(ctx context.Context, o control.Order) error {
	switch o.Do {
	case control.DoSync:
		if !o.Again {
			if err := a.daemon.Ask(ctx, o.ByUID, o.Instances...); err != nil {
				return err
			}
		}
		if a.vault != nil {
			a.vault.ResetBackoff()
		}
		return a.daemon.Check(ctx, o.Instances...)
	case control.DoAdopt:
		return a.daemon.Adopt(ctx, o.ByUID, o.Instances...)
	case control.DoResume:
		return a.daemon.Resume(ctx, o.ByUID, o.Instances...)
	case control.DoPause:
		pause, err := pauseOf(o)
		if err != nil {
			return err
		}
		return a.daemon.Pause(ctx, pause, o.Instances...)
	}
	return fmt.Errorf("no order is called %q", o.Do)
}

// pauseOf is the pause that an order asks for.
func pauseOf(o control.Order) (state.Pause, error) {
	if err := CheckPause(o.For); err != nil {
		return state.Pause{}, err
	}
	now := time.Now()
	return state.Pause{Since: now, Until: now.Add(o.For), Reason: credential.Clean(o.Reason), ByUID: o.ByUID}, nil
}

// History has the events of the history, a line of JSON each.
func (p *process) History() ([]byte, error) {
	p.reading.Lock() // as many as the control socket has connections may ask at once
	defer p.reading.Unlock()
	events, _, err := history.Read(p.Config.StateDir, func(event.Event) bool { return true })
	var lines bytes.Buffer
	for _, e := range events {
		lines.Write(e.Line())
	}
	return lines.Bytes(), err
}

// Metrics is what Prometheus would be answered.
func (p *process) Metrics() ([]byte, error) { return p.meter.Text(p.Status()), nil }

// Examine asks Vault what the daemon's login may do.
func (p *process) Examine(ctx context.Context) ([]byte, error) {
	text, err := json.Marshal(p.current.Load().assembly.examine(ctx))
	return text, err
}

// web is what metrics, health and page are made of.
func (p *process) web() web.Config {
	return web.Config{
		Ping: p.Ping, Status: p.Status, Metrics: p.meter.Handler(p.Status), Logger: p.Logger,
		Drift: func(most int) ([]event.Event, error) {
			return history.Newest(p.Config.StateDir, most, func(e event.Event) bool { return e.Kind.IsDrift() })
		},
	}
}

// document makes the status document of a daemon.
func (p *process) document(now *inForce, s []sync.InstanceStatus) control.Status {
	d := now.assembly.document(s)
	d.Daemon = control.Process{
		Version: p.Version, StartedAt: sync.Moment{Time: p.started}, ConfigFile: p.File,
		ConfigLoadedAt: sync.Moment{Time: now.at}, ReloadError: now.rejected,
	}
	d.Warnings = append(d.Warnings, p.warnings(now)...)
	return d
}

func (p *process) warnings(now *inForce) (all []control.Warning) {
	if now.rejected != "" {
		all = append(all, control.Warning{Code: control.WarnReloadRejected,
			Text: "the configuration file was rejected, the one before is in force; correct it and reload, or restart the daemon for what takes that: " + now.rejected})
	}
	if why := now.hook.Failing(); why != "" {
		all = append(all, control.Warning{Code: control.WarnNotifyFailing, Text: "the program of notify.exec fails; " + why})
	}
	if why := p.history.Failing(); why != "" {
		all = append(all, control.Warning{Code: control.WarnHistoryFailing, Text: "events are missing from the history; " + why})
	}
	return all
}

// modulesInOurGroup are those of all steps.
func (a *assembly) modulesInOurGroup() []string {
	var steps []credential.Step
	for _, in := range a.settings.Instances {
		steps = append(steps, in.Steps...)
	}
	return a.nlserver.InOurGroup(steps)
}

// jwt tells where there is still something of a JWT credential.
func (a *assembly) jwt(s []sync.InstanceStatus) (found []string) {
	if a.config.Campaign.Command == config.CommandJWT {
		found = append(found, credential.JWTCommand)
	}
	for _, in := range s {
		if in.KeyInSecret {
			found = append(found, in.Name+": "+credential.JWTInSecret)
		}
		if in.KeyInFile {
			found = append(found, in.Name+": "+credential.JWTInFile)
		}
	}
	return found
}

// document makes the status document. What it says of Vault is what the instances saw whose credential is there.
func (a *assembly) document(s []sync.InstanceStatus) control.Status {
	d := control.Status{Instances: s, Warnings: []control.Warning{}, Vault: control.Vault{Reachable: true}}
	if modules := a.modulesInOurGroup(); len(modules) > 0 {
		d.Warnings = append(d.Warnings, control.Warning{Code: control.WarnModuleInGroup, Text: strings.Join(modules, ", ") +
			" runs in the daemon's control group and sandbox; enable --now campaign-credsync-activate.socket, then restart it by hand"})
	}
	if jwt := a.jwt(s); len(jwt) > 0 {
		d.Warnings = append(d.Warnings, control.Warning{Code: control.WarnJWTEnded, Text: strings.Join(jwt, "; ") + "; " + credential.JWTRemedy})
	}
	v := &d.Vault
	var unsaved []string
	var why string
	for i, in := range s {
		if in.RecheckFails != "" {
			d.Warnings = append(d.Warnings, control.Warning{Code: control.WarnIMSUnanswered,
				Text: "nobody knows whether Adobe still accepts the credential of " + in.Name + ", as it does not answer; " + in.RecheckFails})
		}
		if in.NotSaved != "" {
			unsaved, why = append(unsaved, in.Name), in.NotSaved
		}
		if _, isFile := a.settings.Instances[i].Source.(*jsonfile.File); isFile {
			continue
		}
		v.Used = true
		v.Reachable = v.Reachable && in.SourceReached
		if in.LastPoll.After(v.LastPoll.Time) {
			v.LastPoll.Time = in.LastPoll
		}
	}
	if len(unsaved) > 0 {
		d.Warnings = append(d.Warnings, control.Warning{Code: control.WarnStateUnsaved, Text: "what is remembered of " +
			strings.Join(unsaved, ", ") + " is lost with the daemon; " + sync.NotSavedRemedy + ": " + credential.OneLine(why)})
	}
	if a.vault == nil {
		return d
	}
	end, soon := a.secretIDEnd()
	v.TokenExpires.Time, v.SecretIDExpires.Time = a.vault.TokenExpires(), end
	if soon {
		d.Warnings = append(d.Warnings, control.Warning{Code: control.WarnSecretIDEnds, Text: a.wordsOfEnd(end)})
	}
	if failure := a.vault.LoginFailure(); failure != nil {
		d.Warnings = append(d.Warnings, control.Warning{Code: control.WarnLoginFailing,
			Text: "logins fail; when the token in use has ended, nothing is read from Vault: " + credential.OneLine(failure.Error())})
	}
	return d
}
