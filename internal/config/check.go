package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	instanceName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$`)
	moduleName   = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// maxSocketPath is what Linux's sockaddr_un holds, without the final zero.
const maxSocketPath = 107

// check refuses what is well-formed and yet cannot work. It changes nothing but the form of vault.address, and parses the schedules.
func (r *reader) check(c *Config) {
	if c.needsVault() || r.given("vault") {
		r.checkVault(c)
		r.checkAuth(c)
	}
	r.refuseIf(c.Watch.Poll < time.Second || c.Watch.Poll > time.Hour, "watch.poll", "must be from 1s to 1h")
	r.checkSchedule(&c.Schedule)
	r.checkCampaign(c.Campaign)
	r.refuseIf(c.Drift.MaxReverts < 1, "drift.max_reverts", "must be 1 or more")
	r.checkInstances(c)
	r.checkIMS(c.IMS)
	r.refuseIf(len(c.ControlSocket) > maxSocketPath, "control_socket",
		"is longer than %d bytes, the most that a socket's path may have", maxSocketPath)
	r.refuseIf(c.Listen != "", "listen", `is not in this release; leave it "" and use campaign-credsync status --json`)
}

func (r *reader) checkCampaign(c Campaign) {
	r.refuseIf(c.Timeout <= 0, "campaign.timeout", "must be longer than 0s, such as 60s")
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

func (r *reader) checkInstances(c *Config) {
	r.refuseIf(len(c.Instances) == 0, "instances", "at least one instance is needed, with name and path")
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
		if first, taken := files[file]; !taken {
			files[file] = n
		} else if !r.refused[key+".name"] {
			r.refuse(key+".config_file", "is the file of instances[%d] already; two would overwrite each other", first)
		}
		r.refuseIf(filepath.Dir(file) == filepath.Clean(c.StateDir), "state_dir",
			"is the directory of instances[%d].config_file; the daemon needs one of its own", n)
		r.checkSource(key, i)
		r.checkFields(key+".fields", i)
	}
}

func (r *reader) checkSource(key string, i Instance) {
	r.checkForeign(key, reflect.ValueOf(i), "source", i.Source)
	switch i.Source {
	case "vault":
		r.refuseIf(i.KVVersion != 1 && i.KVVersion != 2, key+".kv_version", "must be 1 or 2")
		r.checkVaultPath(key+".mount", i.Mount)
		r.refuseIf(i.Path == "", key+".path",
			"is required: the secret's path within the mount, such as campaign/prod/oauth (or set source: file)")
		r.checkVaultPath(key+".path", i.Path)
	case "file":
		r.refuseIf(i.File == "", key+".file",
			"is required by source file: the path of a JSON file with the credential, such as /run/secrets/campaign.json")
	}
}

// checkForeign refuses what belongs to another login method or source: it would be ignored, which its author cannot have meant. The
// tag of a field lists those to which it belongs.
func (r *reader) checkForeign(key string, group reflect.Value, tag, actual string) {
	for field, value := range group.Fields() {
		owners := strings.Fields(field.Tag.Get(tag))
		if len(owners) > 0 && !value.IsZero() && !slices.Contains(owners, actual) && !r.refused[key+"."+tag] {
			r.refuse(join(key, keyOf(field)), "belongs to %s %s; the %s here is %s", tag, orList(owners), tag, actual)
		}
	}
}

// orList writes names as a sentence does: "a", "a or b", "a, b or c".
func orList(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func (r *reader) checkFields(key string, i Instance) {
	first := map[string]string{} // name in the secret → our field
	for _, field := range i.Fields.List() {
		if field.Theirs == "" {
			r.refuse(join(key, field.Ours), "must name a field of the secret; leave the key out for %s", field.Ours)
		} else if other, taken := first[field.Theirs]; taken {
			r.refuse(join(key, field.Ours), "names the same field of the secret as %s", other)
		} else if field.Theirs == "version" && i.Source == SourceFile {
			r.refuse(join(key, field.Ours), `must not be "version", which counts the versions of a file`)
		} else {
			first[field.Theirs] = field.Ours
		}
	}
}

func (r *reader) checkIMS(i IMS) {
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
	r.refuseIf(len(i.Scopes) == 0, "ims.scopes", "at least one scope is needed; leave the key out for openid, AdobeID")
	for n, scope := range i.Scopes {
		r.refuseIf(scope == "" || strings.ContainsAny(scope, ", "), fmt.Sprintf("ims.scopes[%d]", n),
			"must be one scope, without comma or space")
	}
}
