// Package doctor looks at everything that the daemon depends on, and says what is wrong and which command mends it.
//
// It changes nothing. What the running daemon knows it is asked; only where there is none a login is made. Nlserver is never run with a
// credential. No finding holds a secret, a token, or a half of a login.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sources/vault"
)

// Level says how bad a finding is.
type Level string

// The levels. They are public.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, and somebody should look
	Error   Level = "error"   // it does not work, or will not with the next version
	Unseen  Level = "unseen"  // this user may not see it
)

// Levels are all levels, the worst first.
var Levels = []Level{Error, Warning, Unseen, OK}

// Finding is what a check found. The fields are public.
type Finding struct {
	Check    string `json:"check"`
	Level    Level  `json:"level"`
	Instance string `json:"instance"` // empty: it is about none, or all
	Found    string `json:"found"`    // one line
	Remedy   string `json:"remedy"`   // a command, or what else to do; empty where there is nothing to do

	mayNotAsk bool
}

// discard is for what would also be logged: the findings say it.
var discard = slog.New(slog.DiscardHandler)

// MayNotAsk reports whether a daemon is there that this user may not ask.
func MayNotAsk(found []Finding) bool {
	return slices.ContainsFunc(found, func(f Finding) bool { return f.mayNotAsk })
}

// Config says what to look at, and how to ask what the package cannot know by itself. The funcs may be called concurrently.
type Config struct {
	Config *config.Config
	// NoConfig says that this user may not read the configuration: Config has defaults only, and what depends on more is not seen.
	NoConfig bool
	// Examine logs in to Vault and asks it, for where no daemon runs.
	Examine func(ctx context.Context) (vault.Examination, error)
	// Inspect has nlserver tell of itself. It is called by Campaign's user only.
	Inspect func(ctx context.Context) (nlserver.Inspection, error)
}

// Run makes every check, all at the same time, until ctx ends and at most deadline.Grace longer: what did not answer by then is
// reported as that. ctx must have a deadline.
func Run(ctx context.Context, c Config) []Finding {
	x := &examination{Config: c}
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for n, check := range checks {
		all.Go(func() { found[n] = x.run(ctx, check) })
	}
	all.Wait()
	return slices.Concat(found...)
}

// check is one subject.
type check struct {
	name string
	look func(*examination, context.Context) []Finding
	// anyone is for checks that need no configuration.
	anyone bool
}

// checks are all checks, in the order in which they are shown. Their names are public.
var checks = []check{
	{name: "configuration", look: (*examination).configuration, anyone: true},
	{name: "daemon", look: (*examination).daemon, anyone: true},
	{name: "instances", look: (*examination).instances, anyone: true},
	{name: "other_writer", look: (*examination).otherWriter},
	{name: "vault_address", look: (*examination).vaultAddress},
	{name: "login", look: (*examination).login},
	{name: "secret", look: (*examination).secret},
	{name: "policy", look: (*examination).policy},
	{name: "secret_id", look: (*examination).secretID},
	{name: "role_shared", look: (*examination).roleShared},
	{name: "clock", look: (*examination).clock},
	{name: "ims", look: (*examination).ims},
	{name: "nlserver", look: (*examination).nlserver},
	{name: "conf_directory", look: (*examination).confDirectory},
	{name: "instance_file", look: (*examination).instanceFile},
	{name: "pipelined", look: (*examination).pipelined},
	{name: "jwt_ended", look: (*examination).jwtEnded},
	{name: "login_files", look: (*examination).loginFiles},
	{name: "state_dir", look: (*examination).stateDir},
	{name: "set_aside", look: (*examination).setAside},
	{name: "inotify", look: (*examination).inotify, anyone: true},
	{name: "hidepid", look: (*examination).hidepid, anyone: true},
	{name: "auditd", look: (*examination).auditd, anyone: true},
	{name: "selinux", look: (*examination).selinux, anyone: true},
	{name: "core_dumps", look: (*examination).coreDumps, anyone: true},
	{name: "control_group", look: (*examination).controlGroup, anyone: true},
}

// examination is one run of the checks. All of them may use it at the same time.
type examination struct {
	Config

	askOnce sync.Once
	asked   daemon

	examineOnce sync.Once
	examined    vault.Examination
	notExamined error
}

const noAnswer = "see whether the disk, mount or program that it asks answers"

// run makes one check, within the time that ctx leaves.
func (x *examination) run(ctx context.Context, c check) []Finding {
	if x.NoConfig && !c.anyone {
		return nil // the check of the configuration says why
	}
	end, _ := ctx.Deadline()
	found, err := deadline.Run(ctx, time.Until(end)+deadline.Grace, c.name, noAnswer, func() ([]Finding, error) { return c.look(x, ctx), nil })
	if err != nil {
		found = []Finding{failed(noAnswer, "no answer in time")}
	}
	for n := range found {
		found[n].Check = c.name
		found[n].Found, found[n].Remedy = credential.Escape(credential.OneLine(found[n].Found)), credential.Escape(found[n].Remedy)
	}
	return found
}

func well(format string, args ...any) Finding {
	return Finding{Level: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(remedy, format string, args ...any) Finding {
	return Finding{Level: Warning, Found: fmt.Sprintf(format, args...), Remedy: remedy}
}

func failed(remedy, format string, args ...any) Finding {
	return Finding{Level: Error, Found: fmt.Sprintf(format, args...), Remedy: remedy}
}

// asRoot is the remedy of what only root sees.
const asRoot = "sudo -E campaign-credsync doctor"

// unseen is for what this user may not see; remedy says who may.
func unseen(remedy, format string, args ...any) Finding {
	return Finding{Level: Unseen, Found: fmt.Sprintf(format, args...), Remedy: remedy}
}

// notRead is the finding about a file that could not be looked at.
func notRead(path string, err error) Finding {
	if errors.Is(err, fs.ErrPermission) {
		return unseen(asRoot, "%s: this user may not read it", path)
	}
	return failed("see whether the path is right, and the disk answers", "%s: %v", path, withoutPath(err))
}

func withoutPath(err error) error {
	if of, ok := errors.AsType[*fs.PathError](err); ok {
		return of.Err
	}
	return err
}

// of says which instance findings are about.
func of(instance string, found ...Finding) []Finding {
	for n := range found {
		found[n].Instance = instance
	}
	return found
}

// each makes findings for each instance.
func (x *examination) each(look func(config.Instance) []Finding) (all []Finding) {
	for _, i := range x.Config.Config.Instances {
		all = append(all, of(i.Name, look(i)...)...)
	}
	return all
}

// configuration tells what is doubtful in it.
func (x *examination) configuration(context.Context) (all []Finding) {
	if x.NoConfig {
		return []Finding{unseen(asRoot, "this user may not read the configuration file, so what it names is not looked at")}
	}
	for _, warning := range x.Config.Config.Warnings {
		all = append(all, warn("correct the configuration file, then: systemctl reload campaign-credsync", "%s", warning))
	}
	if len(all) == 0 {
		all = append(all, well("valid"))
	}
	return all
}

// campaignUser is whom Campaign belongs to, as the daemon's user; -1: not known.
func (x *examination) campaignUser() int {
	info, err := os.Stat(x.Config.Config.Campaign.Home)
	if err != nil {
		return -1
	}
	return ownerOf(info)
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) } // always that on Linux

// sudoName is a user as sudo -u takes it.
func sudoName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "'#" + strconv.Itoa(uid) + "'"
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "user " + strconv.Itoa(uid)
}
