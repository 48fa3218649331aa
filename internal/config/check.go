package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
)

// Values that the code asks for by name.
const (
	methodAppRole    = "approle"
	methodTokenFile  = "token_file"
	methodCert       = "cert"
	methodKubernetes = "kubernetes"
	methodJWT        = "jwt"
	eventsAuto       = "auto"
	EventsOff        = "off"
	SourceVault      = "vault"
	SourceFile       = "file"
)

// vaultKeys are the keys of an instance that say where in Vault its secret is.
var vaultKeys = []string{"mount", "path", "kv_version"}

var (
	instanceName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$`)
	moduleName   = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

// maxSocketPath is what Linux's sockaddr_un holds, without the final zero.
const maxSocketPath = 107

// check refuses what is well-formed and yet cannot work. It changes nothing but the form of vault.address.
func (r *reading) check(c *Config) {
	if c.needsVault() || r.speaksOfVault() {
		r.checkVault(c)
		r.checkAuth(c)
	}
	r.checkWatch(c.Watch)
	r.checkSchedule(c.Schedule)
	r.checkCampaign(c.Campaign)
	r.oneOf("drift.revert", c.Drift.Revert, "splice", "nlserver", "alert")
	if c.Drift.MaxReverts < 1 {
		r.refuse("drift.max_reverts", "must be 1 or more")
	}
	r.checkInstances(c)
	r.checkIMS(c.IMS)
	r.needed("state_dir", c.StateDir)
	r.needed("control_socket", c.ControlSocket)
	if len(c.ControlSocket) > maxSocketPath {
		r.refuse("control_socket", "is longer than %d bytes, the most that a socket's path may have", maxSocketPath)
	}
	if c.Listen != "" {
		r.refuse("listen", `is not in this release; leave it "" and use campaign-credsync status --json`)
	}
	r.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	r.oneOf("log.format", c.Log.Format, "auto", "tint", "text", "json")
}

func (r *reading) checkWatch(w Watch) {
	if w.Poll < time.Second || w.Poll > time.Hour {
		r.refuse("watch.poll", "must be from 1s to 1h")
	}
	r.oneOf("watch.events", w.Events, eventsAuto, EventsOff)
}

func (r *reading) checkSchedule(s Schedule) {
	if s.Verify == "" {
		r.refuse("schedule.verify", `must be a cron expression, such as "@every 10m"; it cannot be switched off`)
	}
	for _, e := range []struct{ key, text string }{
		{"schedule.verify", s.Verify}, {"schedule.reapply", s.Reapply}, {"schedule.activate", s.Activate},
	} {
		if e.text == "" {
			continue
		}
		if _, err := parseCron(e.text); err != nil {
			r.refuse(e.key, `must be a cron expression of five fields, or such as "@daily" or "@every 10m": %s`,
				credential.Escape(err.Error()))
		}
	}
	if _, err := time.LoadLocation(s.Timezone); err != nil || s.Timezone == "" {
		r.refuse("schedule.timezone", "must be a time zone of this system, such as UTC or Europe/Paris (others than UTC need the package tzdata)")
	}
}

func parseCron(text string) (cron.Schedule, error) {
	if strings.Contains(text, "TZ=") {
		// The library takes a zone here, and panics on one without an expression behind it.
		return nil, fmt.Errorf("the time zone is set by schedule.timezone")
	}
	if every, ok := strings.CutPrefix(text, "@every "); ok {
		// The library would take anything shorter, also a negative one, for a second.
		if d, err := time.ParseDuration(every); err == nil && d < time.Second {
			return nil, fmt.Errorf("@every needs 1s or more")
		}
	}
	schedule, err := cron.ParseStandard(text)
	if err != nil {
		return nil, err
	}
	// From a fixed day on, so that the answer is the same each time. The library looks five years ahead.
	if schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("that time never comes")
	}
	return schedule, nil
}

func (r *reading) checkCampaign(c Campaign) {
	r.needed("campaign.home", c.Home)
	r.needed("campaign.nlserver", c.Nlserver)
	r.oneOf("campaign.command", c.Command, "auto", "setimsoauth", "setimsauth", "setimsjwtauth")
	if c.Timeout <= 0 {
		r.refuse("campaign.timeout", "must be longer than 0s, such as 60s")
	}
	for i, module := range c.Activate.Restart {
		key := fmt.Sprintf("campaign.activate.restart[%d]", i)
		switch {
		case strings.Contains(module, "@"):
			r.refuse(key, `must be the module alone; the daemon adds "@" and the instance where the module has one`)
		case !moduleName.MatchString(module):
			r.refuse(key, "must be a module's name, such as pipelined or web: letters, digits and _")
		case slices.Contains(c.Activate.Restart[:i], module):
			r.refuse(key, "is there twice")
		}
	}
}

func (r *reading) checkInstances(c *Config) {
	if len(c.Instances) == 0 {
		r.refuse("instances", "at least one instance is needed, with name and path")
	}
	names := map[string]int{} // name → index of the first instance that has it
	files := map[string]int{}
	for n, i := range c.Instances {
		key := fmt.Sprintf("instances[%d]", n)
		switch first, taken := names[i.Name]; {
		case i.Name == "":
			r.refuse(key+".name", "is required")
		case !instanceName.MatchString(i.Name):
			r.refuse(key+".name", "must be letters, digits, _ and -, no - in front, and 128 characters at most")
		case i.Name == "default":
			r.refuse(key+".name", "must be an instance; config-default.xml holds the defaults of all and is none")
		case taken:
			r.refuse(key+".name", "is the name of instances[%d] already", first)
		default:
			names[i.Name] = n
		}
		file := filepath.Clean(i.ConfigFile)
		if first, taken := files[file]; taken && !r.refused[key+".name"] && i.ConfigFile != "" {
			r.refuse(key+".config_file", "is the file of instances[%d] already; two would overwrite each other", first)
		} else if !taken {
			files[file] = n
		}
		if i.ConfigFile != "" && filepath.Dir(file) == filepath.Clean(c.StateDir) {
			r.refuse("state_dir", "is the directory of instances[%d].config_file; the daemon needs one of its own", n)
		}
		r.checkInstanceSource(key, i)
		r.checkFields(key+".fields", i.Fields)
	}
}

func (r *reading) checkInstanceSource(key string, i Instance) {
	switch i.Source {
	case SourceVault:
		r.checkVaultSecret(key, i)
	case SourceFile:
		r.checkSecretFile(key, i)
	default:
		r.refuse(key+".source", "must be one of vault, file")
	}
}

func (r *reading) checkVaultSecret(key string, i Instance) {
	if i.File != "" {
		r.refuse(key+".file", "belongs to source file; the source here is vault, which has mount and path")
	}
	if i.KVVersion != 1 && i.KVVersion != 2 {
		r.refuse(key+".kv_version", "must be 1 or 2")
	}
	r.vaultPath(key+".mount", i.Mount)
	if i.Path == "" {
		r.refuse(key+".path", "is required: the secret's path within the mount, such as campaign/prod/oauth (or set source: file)")
	} else {
		r.vaultPath(key+".path", i.Path)
	}
}

func (r *reading) checkSecretFile(key string, i Instance) {
	for _, foreign := range vaultKeys {
		if _, given := r.at[join(key, foreign)]; given {
			r.refuse(join(key, foreign), "belongs to source vault; the source here is file")
		}
	}
	if i.File == "" {
		r.refuse(key+".file", "is required by source file: the path of a JSON file with the credential, such as /run/secrets/campaign.json")
	}
	for _, field := range i.Fields.List() {
		if field.Theirs == "version" {
			r.refuse(join(key+".fields", field.Ours), `must not be "version", which counts the versions of a file`)
		}
	}
}

func (r *reading) checkFields(key string, f Fields) {
	first := map[string]string{} // name in the secret → our field
	for _, field := range f.List() {
		if field.Theirs == "" {
			r.refuse(join(key, field.Ours), "must name a field of the secret; leave the key out for %s", field.Ours)
		} else if other, taken := first[field.Theirs]; taken {
			r.refuse(join(key, field.Ours), "names the same field of the secret as %s", other)
		} else {
			first[field.Theirs] = field.Ours
		}
	}
}

// FieldName is what we and the secret call a field.
type FieldName struct{ Ours, Theirs string }

// List returns the fields in the order of the configuration.
func (f Fields) List() []FieldName {
	return []FieldName{
		{credential.FieldOrgID, f.OrgID},
		{credential.FieldClientID, f.ClientID},
		{credential.FieldTechnicalAccountID, f.TechnicalAccountID},
		{credential.FieldClientSecret, f.ClientSecret},
		{credential.FieldPrivateKey, f.PrivateKey},
	}
}

func (r *reading) checkIMS(i IMS) {
	switch i.Probe {
	case "off":
	case "before_apply":
		r.refuse("ims.probe", "before_apply is not in this release; use off")
	default:
		r.refuse("ims.probe", "must be off")
	}
	if u, problem := hostURL(i.Endpoint); problem != "" {
		r.refuse("ims.endpoint", "%s", problem)
	} else if u.Scheme != "https" {
		r.refuse("ims.endpoint", "must be an https URL")
	}
	if len(i.Scopes) == 0 {
		r.refuse("ims.scopes", "at least one scope is needed; leave the key out for openid, AdobeID")
	}
	for n, scope := range i.Scopes {
		if scope == "" || strings.ContainsAny(scope, ", ") {
			r.refuse(fmt.Sprintf("ims.scopes[%d]", n), "must be one scope, without comma or space")
		}
	}
}

func (r *reading) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		r.refuse(key, "must be one of %s", strings.Join(allowed, ", "))
	}
}

func (r *reading) needed(key, value string) {
	if value == "" {
		r.refuse(key, "must not be empty; leave the key out for the default")
	}
}
