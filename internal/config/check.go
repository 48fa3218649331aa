package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

var (
	instanceName = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_-]*$`)
	moduleName   = lazyregexp.New(`^[A-Za-z0-9_]+$`)
)

// maxInstanceName is in characters, which are all ASCII.
const maxInstanceName = 128

// maxReverts is how many the record of an instance has room for.
const maxReverts = 10_000

// maxSocketPath is what Linux's sockaddr_un holds, without the final zero.
const maxSocketPath = 107

// check refuses what is well-formed and yet cannot work. It changes nothing but the form of vault.address, and parses the schedules.
func (r *reader) check(c *Config) {
	if c.needsVault() {
		r.checkVault(c)
		r.checkAuth(c)
	}
	r.refuseIf(c.Watch.Poll < time.Second || c.Watch.Poll > time.Hour, "watch.poll", "must be from 1s to 1h")
	r.checkSchedule(&c.Schedule)
	r.refuseIf(c.Campaign.Timeout <= 0, "campaign.timeout", "must be longer than 0s, such as 60s")
	for i, module := range c.Campaign.Activate.Restart {
		r.refuseIf(!moduleName().MatchString(module), fmt.Sprintf("campaign.activate.restart[%d]", i),
			"must be a module's name without its instance, such as pipelined or web: letters, digits and _")
	}
	r.refuseIf(c.Drift.MaxReverts < 1 || c.Drift.MaxReverts > maxReverts, "drift.max_reverts", "must be from 1 to %d", maxReverts)
	r.checkInstances(c)
	r.checkIMS(c)
	r.checkJWT(c)
	r.checkListen(c.Listen)
	r.refuseIf(len(c.Notify.Exec) > 0 && !path.IsAbs(c.Notify.Exec[0]), "notify.exec", "must begin with the absolute path of a program")
	r.refuseIf(c.Notify.Timeout <= 0 || c.Notify.Timeout > time.Hour, "notify.timeout", "must be longer than 0s, and at most 1h")
	r.refuseIf(c.Campaign.Activate.MinInterval < 0 || c.Campaign.Activate.MinInterval > 24*time.Hour, "campaign.activate.min_interval",
		"must be from 0s to 24h")
	r.refuseIf(len(c.Campaign.Activate.Socket) > maxSocketPath, "campaign.activate.socket",
		"is longer than %d bytes, the most that a socket's path may have", maxSocketPath)
	r.refuseIf(len(c.ControlSocket) > maxSocketPath, "control_socket",
		"is longer than %d bytes, the most that a socket's path may have", maxSocketPath)
}

// warn notes a setting that is allowed and yet probably not meant.
func (r *reader) warn(c *Config, key, text string) {
	c.Warnings = append(c.Warnings, r.line(key, text))
}

// scope is what the form of a request can carry in a list with commas.
var scope = lazyregexp.New(`^[!-+\--~]+$`)

// checkIMS refuses an address to which the secret would go in clear.
func (r *reader) checkIMS(c *Config) {
	i := &c.IMS
	u, err := url.Parse(strings.TrimSuffix(i.Endpoint, "/"))
	isHost := err == nil && u.Hostname() != "" && *u == (url.URL{Scheme: u.Scheme, Host: u.Host})
	if isHost && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())) {
		i.Endpoint = u.String()
	} else {
		r.refuse("ims.endpoint", "must be an https URL of a host, without user and path, such as https://ims-na1.adobelogin.com (http only for this host itself)")
	}
	r.refuseIf(len(i.Scopes) == 0, "ims.scopes", "must name at least one scope, such as [openid, AdobeID]")
	for n, s := range i.Scopes {
		r.refuseIf(!scope().MatchString(s), fmt.Sprintf("ims.scopes[%d]", n), "must be a scope's name, without a space or a comma")
	}
	r.refuseIf(i.Patience < time.Second || i.Patience > time.Hour, "ims.patience", "must be from 1s to 1h")
	r.refuseIf(i.Recheck != 0 && (i.Recheck < time.Minute || i.Recheck > 720*time.Hour), "ims.recheck", "must be 0s, or from 1m to 720h")
}

// checkJWT warns of what is for JWT credentials only, which Adobe has ended.
func (r *reader) checkJWT(c *Config) {
	if c.Campaign.Command == CommandJWT {
		r.refuseIf(c.IMS.Asks(), "campaign.command", "cannot be with ims.probe or ims.recheck: Adobe's client credentials grant is not for JWT credentials")
		r.warn(c, "campaign.command", credential.JWTRemedy)
	}
	for n, i := range c.Instances {
		if i.Fields.PrivateKey != credential.FieldPrivateKey { // else it may be a copy of what validate --effective prints
			r.warn(c, fmt.Sprintf("instances[%d].fields.private_key", n), "is for JWT credentials only; remove it when the secret holds an OAuth credential. "+credential.JWTRemedy)
		}
	}
}

func (r *reader) checkListen(address string) {
	const allowed = "must be host:port, such as 127.0.0.1:9809, or unix:/run/campaign-credsync/http.sock"
	if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		r.refuseIf(!strings.HasPrefix(path, "/") || len(path) > maxSocketPath, "listen", allowed)
	} else if address != "" {
		_, port, err := net.SplitHostPort(address)
		n, wrong := strconv.Atoi(port)
		r.refuseIf(err != nil || wrong != nil || n < 1 || n > 65535, "listen", allowed)
	}
}

func (r *reader) checkVault(c *Config) {
	v := &c.Vault
	u, err := url.Parse(strings.TrimSuffix(v.Address, "/"))
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && *u == (url.URL{Scheme: u.Scheme, Host: u.Host}) {
		v.Address = u.String()
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			r.warn(c, "vault.address", "http sends the login and the secret in clear over the network; use https")
		}
	} else if v.Address == "" {
		r.refuse("vault.address", "is required, such as https://vault.example.com:8200 (or set VAULT_ADDR)")
	} else { // without the address, which may hold a password
		r.refuse("vault.address", "must be an http or https URL of a host, without user and path, such as https://vault.example.com:8200 "+
			"(or set VAULT_ADDR)")
	}
	if err == nil && u.Port() != "" {
		n, err := strconv.Atoi(u.Port())
		r.refuseIf(err != nil || n < 1 || n > 65535, "vault.address", "has a port that is not from 1 to 65535")
	}
	r.refuseIf(v.ClientCert != "" && v.ClientKey == "", "vault.client_cert", "needs client_key too")
	r.refuseIf(v.ClientKey != "" && v.ClientCert == "", "vault.client_key", "needs client_cert too")
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host) // which knows zones
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (r *reader) checkAuth(c *Config) {
	a := &c.Vault.Auth
	required := func(key, value string) {
		r.refuseIf(value == "", key, "is required by method %s", a.Method)
	}
	switch a.Method {
	case MethodAppRole:
		r.refuseIf(a.RoleID.IsZero() == (a.RoleIDFile == "") && !r.refused["vault.auth.role_id_file"], "vault.auth.role_id",
			"is required by method approle, or role_id_file")
		if a.SecretIDFile == "" {
			r.warn(c, "vault.auth.secret_id_file", "is not set, so the login works only for a role with bind_secret_id=false")
		}
		r.refuseIf(a.SecretIDFile == "" && a.SecretIDWrapped, "vault.auth.secret_id_file", "is required by secret_id_wrapped")
	case MethodTokenFile:
		required("vault.auth.token_file", a.TokenFile)
	case MethodCert:
		required("vault.client_cert", c.Vault.ClientCert)
		r.refuseIf(strings.HasPrefix(c.Vault.Address, "http://"), "vault.address",
			"must be an https URL for method cert, which shows its certificate in the TLS handshake")
	case MethodKubernetes, MethodJWT:
		required("vault.auth.role", a.Role)
		required("vault.auth.jwt_file", a.JWTFile)
	}
	r.checkForeign("vault.auth", reflect.ValueOf(*a), "method", a.Method)
	r.checkVaultPath("vault.auth.mount", a.Mount)
}

// checkForeign refuses what belongs to another login method or source: it would be ignored, which its author cannot have meant. The
// tag of a field lists those to which it belongs.
func (r *reader) checkForeign(key string, group reflect.Value, tag, actual string) {
	for field, value := range group.Fields() {
		owners := strings.Fields(field.Tag.Get(tag))
		if len(owners) > 0 && !value.IsZero() && !slices.Contains(owners, actual) && !r.refused[key+"."+tag] {
			r.refuse(join(key, keyOf(field)), "belongs to %s %s; the %s here is %s", tag, strings.Join(owners, ", "), tag, actual)
		}
	}
}

// checkVaultPath refuses what the HTTP client would change or cut, so that the path asked for is the path written.
func (r *reader) checkVaultPath(key, text string) {
	if text == "" {
		r.refuse(key, "is required, such as campaign/prod/oauth")
	}
	r.refuseIf(path.Clean("/"+text) != "/"+text || strings.TrimSpace(text) != text || strings.ContainsAny(text, "?#%"), key,
		`must be a path such as campaign/prod/oauth, without "/" or a space at an end, and without "//", ".", "..", "?", "#" and "%%"`)
}

func (r *reader) checkSchedule(s *Schedule) {
	if _, err := time.LoadLocation(s.Timezone); err != nil {
		r.refuse("schedule.timezone", "must be a time zone of this system, such as UTC or Europe/Paris (others than UTC need the package tzdata)")
		return
	}
	parse := func(key, text string) cron.Schedule {
		if text == "" {
			return nil
		}
		schedule, err := cron.ParseStandard("CRON_TZ=" + s.Timezone + " " + text)
		if err != nil {
			r.refuse(key, `must be a cron expression of five fields, or such as "@daily" or "@every 10m": %s`, credential.Escape(err.Error()))
		} else if schedule.Next(time.Now()).IsZero() {
			r.refuse(key, "names a time that never comes")
		}
		// The library takes anything shorter, also a negative duration, for a second.
		if every, ok := strings.CutPrefix(strings.TrimSpace(text), "@every "); ok {
			d, err := time.ParseDuration(every)
			r.refuseIf(err == nil && d < time.Second, key, "@every needs 1s or more")
		}
		return schedule
	}
	s.VerifyAt = parse("schedule.verify", s.Verify)
	s.ReapplyAt = parse("schedule.reapply", s.Reapply)
	s.ActivateAt = parse("schedule.activate", s.Activate)
}

func (r *reader) checkInstances(c *Config) {
	r.refuseIf(len(c.Instances) == 0, "instances", "at least one instance is needed, with name and path")
	first := map[string]int{}   // name → index of the first instance that has it
	firstOf := map[string]int{} // file → the same
	for n, i := range c.Instances {
		key := fmt.Sprintf("instances[%d]", n)
		if i.Name == "" {
			r.refuse(key+".name", "is required: the NAME in conf/config-NAME.xml")
		}
		r.refuseIf(!instanceName().MatchString(i.Name) || len(i.Name) > maxInstanceName || i.Name == "default", key+".name", // config-default.xml is no instance's
			"must be an instance's name: letters, digits, _ and -, no - in front, and 128 characters at most")
		// An instance's record is NAME.json; these are of the logins.
		r.refuseIf(i.Name == "refused-secret-id" || i.Name == "accepted-secret-id", key+".name", "is the name of another file in state_dir")
		if before, taken := first[i.Name]; taken {
			r.refuse(key+".name", "is the name of instances[%d] already", before)
		} else {
			first[i.Name] = n
		}
		file := path.Clean(i.ConfigFile)
		if before, taken := firstOf[file]; !taken {
			firstOf[file] = n
		} else if i.Name != "" && !r.refused[key+".name"] {
			r.refuse(key+".config_file", "is the file of instances[%d] already; two would overwrite each other", before)
		}
		r.refuseIf(path.Dir(file) == path.Clean(c.StateDir), "state_dir",
			"is the directory of instances[%d].config_file; the daemon needs one of its own", n)
		r.checkForeign(key, reflect.ValueOf(i), "source", i.Source)
		ours := map[string]string{} // name in the secret → our field
		for field, theirs := range reflect.ValueOf(i.Fields).Fields() {
			other, taken := ours[theirs.String()]
			r.refuseIf(taken && theirs.String() != "", join(key+".fields", keyOf(field)), "names the same field of the secret as %s", other)
			ours[theirs.String()] = keyOf(field)
		}
		if i.Source == SourceFile {
			r.refuseIf(i.File == "", key+".file", "is required by source file")
		} else {
			r.refuseIf(i.KVVersion != 1 && i.KVVersion != 2, key+".kv_version", "must be 1 or 2")
			r.checkVaultPath(key+".mount", i.Mount)
			r.checkVaultPath(key+".path", i.Path)
			within, isAPI := strings.CutPrefix(i.Path, i.Mount+"/data/")
			r.refuseIf(isAPI && i.KVVersion == 2, key+".path", "is a path of Vault's API; write %s, without the mount and \"data/\"", credential.Escape(within))
			if i.KVVersion == 2 && (strings.HasPrefix(i.Path, "data/") || strings.HasSuffix(i.Mount, "/data")) {
				r.warn(c, key+".path", `the "data/" of Vault's API is added by itself; leave it out unless the secret's own path has it`)
			}
		}
	}
}
