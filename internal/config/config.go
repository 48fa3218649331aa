// Package config is the configuration file: its keys, their defaults, and every check that needs neither network nor another file.
//
// It is data and checks, and opens, logs and wires nothing.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

const (
	DefaultFile = "/etc/campaign-credsync/config.yaml"
	maxSize     = 1 << 20 // bytes
)

// config is the configuration file with every default filled in, as Load leaves it. It is plain data: whoever
// holds it may read it from several goroutines as long as nobody writes.
//
// A field tagged is:"path" has ${NAME} replaced from the environment; is:"absolute" also has to start with a "/".
type Config struct {
	Vault         Vault      `yaml:"vault"`
	Watch         Watch      `yaml:"watch"`
	Schedule      Schedule   `yaml:"schedule"`
	Campaign      Campaign   `yaml:"campaign"`
	Drift         Drift      `yaml:"drift"`
	Instances     []Instance `yaml:"instances"`
	IMS           IMS        `yaml:"ims"`
	StateDir      string     `yaml:"state_dir" is:"absolute"`
	ControlSocket string     `yaml:"control_socket" is:"absolute"`
	Listen        string     `yaml:"listen"` // always empty in this release
	Log           Log        `yaml:"log"`

	// warnings are settings that are allowed and yet probably not meant. validate prints them, run logs them.
	Warnings []string
	at       func(key string, err error) error
}

type Vault struct {
	Address       string `yaml:"address"` // http or https, no path, no trailing slash
	Namespace     string `yaml:"namespace"`
	CACert        string `yaml:"ca_cert" is:"absolute"`     // PEM file; empty: the system's
	ClientCert    string `yaml:"client_cert" is:"absolute"` // PEM file, always together with ClientKey
	ClientKey     string `yaml:"client_key" is:"absolute"`
	TLSServerName string `yaml:"tls_server_name"` // empty: the host of Address
	Auth          Auth   `yaml:"auth"`
}

type Auth struct {
	Method    string `yaml:"method"`
	Mount     string `yaml:"mount"`     // where the method is mounted, no slash at either end
	Namespace string `yaml:"namespace"` // where the login happens
	// RoleID is half of a credential, so it is kept like one.
	RoleID          credential.Secret `yaml:"role_id"`
	RoleIDFile      string            `yaml:"role_id_file" is:"absolute"`
	SecretIDFile    string            `yaml:"secret_id_file" is:"absolute"`
	SecretIDWrapped bool              `yaml:"secret_id_wrapped"` // SecretIDFile holds a wrapping token
	SecretIDWarn    time.Duration     `yaml:"secret_id_warn"`    // before a secret-id's end; 0: never
	TokenFile       string            `yaml:"token_file" is:"absolute"`
	Role            string            `yaml:"role"`                   // of cert, kubernetes and jwt
	JWTFile         string            `yaml:"jwt_file" is:"absolute"` // of kubernetes and jwt
}

type Watch struct {
	Poll   time.Duration `yaml:"poll"`
	Events string        `yaml:"events"` // auto or off
}

// Schedule holds cron expressions; parse makes them usable.
type Schedule struct {
	Verify   string `yaml:"verify"`
	Reapply  string `yaml:"reapply"`  // empty: never
	Activate string `yaml:"activate"` // empty: at once
	Timezone string `yaml:"timezone"`
}

type Campaign struct {
	Home      string        `yaml:"home" is:"absolute"`
	Nlserver  string        `yaml:"nlserver" is:"path"`   // relative to Home, or absolute
	EnvScript string        `yaml:"env_script" is:"path"` // likewise; empty: none
	Command   string        `yaml:"command"`
	Timeout   time.Duration `yaml:"timeout"`
	Activate  Activate      `yaml:"activate"`
}

type Activate struct {
	Reload  bool     `yaml:"reload"`
	Restart []string `yaml:"restart"` // modules without their @instance
}

type Drift struct {
	Revert     string `yaml:"revert"`
	MaxReverts int    `yaml:"max_reverts"` // an hour and instance
}

type Instance struct {
	Name          string `yaml:"name"`
	Mount         string `yaml:"mount"`              // mount, path and kv_version: of source vault only
	Path          string `yaml:"path"`               //
	KVVersion     int    `yaml:"kv_version"`         // 1 or 2
	Source        string `yaml:"source"`             // vault or file
	File          string `yaml:"file" is:"absolute"` // of source file only
	Fields        Fields `yaml:"fields"`
	ConfigFile    string `yaml:"config_file" is:"absolute"`
	AllowRollback bool   `yaml:"allow_rollback"`
}

// Fields tells under which name the secret holds each field of the credential.
type Fields struct {
	OrgID              string `yaml:"ims_org_id"`
	ClientID           string `yaml:"client_id"`
	TechnicalAccountID string `yaml:"technical_account_id"`
	ClientSecret       string `yaml:"client_secret"`
	PrivateKey         string `yaml:"private_key"`
}

type IMS struct {
	Probe    string   `yaml:"probe"` // always off in this release
	Endpoint string   `yaml:"endpoint"`
	Scopes   []string `yaml:"scopes"`
}

type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

const (
	defaultSecretIDWarn = 7 * 24 * time.Hour
	// kubernetesJWTFile is where Kubernetes puts a pod's service account token.
	kubernetesJWTFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	// notSaid is a duration that nobody writes, in place of a default that depends on another key.
	notSaid = time.Duration(math.MinInt64)
)

// defaults holds every default that depends on no other key. The others are added by complete.
func defaults() *Config {
	return &Config{
		Vault:    Vault{Auth: Auth{Method: methodAppRole, SecretIDWarn: notSaid}},
		Watch:    Watch{Poll: 30 * time.Second, Events: eventsAuto},
		Schedule: Schedule{Verify: "@every 10m", Timezone: "UTC"},
		Campaign: Campaign{
			Home:      "/usr/local/neolane/nl6",
			Nlserver:  "bin/nlserver",
			EnvScript: "env.sh",
			Command:   "auto",
			Timeout:   60 * time.Second,
			Activate:  Activate{Reload: true, Restart: []string{}},
		},
		Drift: Drift{Revert: "splice", MaxReverts: 60},
		IMS: IMS{
			Probe:    "off",
			Endpoint: "https://ims-na1.adobelogin.com",
			Scopes:   []string{"openid", "AdobeID"},
		},
		Instances:     []Instance{},
		StateDir:      "/var/lib/campaign-credsync",
		ControlSocket: "/run/campaign-credsync/control.sock",
		Log:           Log{Level: "info", Format: "auto"},
	}
}

// setDefaults is called on each instance before what the file says about it is read.
func (i *Instance) setDefaults() {
	*i = Instance{
		Mount:     "secret",
		KVVersion: 2,
		Source:    SourceVault,
		Fields: Fields{
			OrgID:              credential.FieldOrgID,
			ClientID:           credential.FieldClientID,
			TechnicalAccountID: credential.FieldTechnicalAccountID,
			ClientSecret:       credential.FieldClientSecret,
			PrivateKey:         credential.FieldPrivateKey,
		},
	}
}

// complete adds the defaults that depend on other keys.
func (c *Config) complete() {
	a := &c.Vault.Auth
	if a.Mount == "" {
		a.Mount = a.Method
	}
	if a.Namespace == "" {
		a.Namespace = c.Vault.Namespace
	}
	if a.SecretIDWarn == notSaid {
		a.SecretIDWarn = 0
		if a.Method == methodAppRole {
			a.SecretIDWarn = defaultSecretIDWarn
		}
	}
	if a.JWTFile == "" && a.Method == methodKubernetes {
		a.JWTFile = kubernetesJWTFile
	}
	for n := range c.Instances {
		if i := &c.Instances[n]; i.ConfigFile == "" {
			i.ConfigFile = filepath.Join(c.Campaign.Home, "conf", "config-"+i.Name+".xml")
		}
	}
}

// Schedules are the parsed expressions of Schedule; one that is empty is nil.
type Schedules struct {
	Verify, Reapply, Activate cron.Schedule
}

// parse cannot fail on a configuration that Load returned, except where the time zone database vanished since.
func (s Schedule) Parse() (Schedules, error) {
	var parsed Schedules
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil {
		return parsed, fmt.Errorf("schedule.timezone: %w", err)
	}
	for _, e := range []struct {
		key, text string
		into      *cron.Schedule
	}{
		{"verify", s.Verify, &parsed.Verify},
		{"reapply", s.Reapply, &parsed.Reapply},
		{"activate", s.Activate, &parsed.Activate},
	} {
		if e.text == "" {
			continue
		}
		schedule, err := parseCron(e.text)
		if err != nil {
			return parsed, fmt.Errorf("schedule.%s: %w", e.key, err)
		}
		*e.into = zonedSchedule{schedule, zone}
	}
	return parsed, nil
}

// zonedSchedule is a schedule in its own time zone, whatever zone its caller's clock shows.
type zonedSchedule struct {
	cron.Schedule
	zone *time.Location
}

// Next is as of cron.Schedule, except that a time which the clock skips in spring comes when it skips: cron leaves it out, which for
// a Sunday night would be a week.
func (z zonedSchedule) Next(after time.Time) time.Time {
	after = after.In(z.zone)
	next := z.Schedule.Next(after)
	spec, ok := z.Schedule.(*cron.SpecSchedule)
	if !ok {
		return next
	}
	for at := after; ; {
		_, change := at.ZoneBounds()
		if change.IsZero() || !change.Before(next) {
			return next
		}
		_, before := change.Add(-time.Second).Zone()
		_, from := change.Zone()
		still := *spec // in a zone that does not skip
		still.Location = time.FixedZone("", before)
		if still.Next(change.Add(-time.Second)).Before(change.Add(time.Duration(from-before) * time.Second)) {
			return change
		}
		at = change
	}
}

// Load reads, completes and checks the file. It touches neither the network nor any file that the configuration names. env is
// os.LookupEnv, or what stands for it.
//
// An error is an *Error and lists every problem, none of them with a value that may be secret. The Config beside it is never nil, holds
// what could be read, and is good for showing names and finding the control socket, not for work.
func Load(file string, env func(string) (string, bool)) (*Config, error) {
	text, err := readFile(file)
	if err != nil {
		return defaults(), &Error{file: file, whole: err}
	}
	c, bad := parse(file, text, env)
	if bad != nil {
		return c, bad
	}
	return c, nil
}

func parse(file string, text []byte, env func(string) (string, bool)) (*Config, *Error) {
	c := defaults()
	r := newReading(env)
	r.read(text, c)
	if !r.unreadable {
		if c.needsVault() || r.speaksOfVault() {
			r.fillFromEnvironment(c)
		}
		c.complete()
		r.check(c)
	}
	if len(r.problems) > 0 {
		return c, &Error{file: file, problems: r.sorted()}
	}
	c.at = func(key string, err error) error {
		return &Error{file: file, problems: []problem{{r.where(key), key, err.Error()}}}
	}
	return c, nil
}

func readFile(file string) ([]byte, error) {
	text, err := regularfile.Read(file, maxSize)
	if _, ok := errors.AsType[*fs.PathError](err); !ok {
		return text, err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("there is no such file; give another with --config")
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("this user may not read the file; run as the daemon's user")
	}
	return nil, errors.Unwrap(err) // without the path, which stands in front of each problem
}

// effective writes the configuration as YAML, every default filled in and the role-id masked. What no instance uses is left
// out.
func (c *Config) Effective(w io.Writer) error {
	var unused []string
	if c.Vault.Address == "" {
		unused = []string{"vault"}
	}
	var out bytes.Buffer
	err := yaml.NewEncoder(&out,
		yaml.IndentSequence(true),
		yaml.CustomMarshaler(func(s credential.Secret) ([]byte, error) {
			if s.Reveal() == "" {
				return []byte(`""`), nil
			}
			return []byte(`"[set]"`), nil
		}),
	).Encode(without(reflect.ValueOf(*c), unused...))
	if err != nil {
		return fmt.Errorf("write the effective configuration: %w", err)
	}
	_, err = w.Write(out.Bytes())
	return err
}

// MarshalYAML leaves out what belongs to another source: read again, it would be refused.
func (i Instance) MarshalYAML() (any, error) {
	var foreign []string
	if i.Source == SourceFile {
		foreign = vaultKeys
	}
	return without(reflect.ValueOf(i), foreign...), nil
}

// without lists the keys of a group, in order, except some.
func without(group reflect.Value, keys ...string) yaml.MapSlice {
	var kept yaml.MapSlice
	for field := range group.Type().Fields() {
		if key := field.Tag.Get("yaml"); key != "" && !slices.Contains(keys, key) {
			kept = append(kept, yaml.MapItem{Key: key, Value: group.FieldByIndex(field.Index).Interface()})
		}
	}
	return kept
}

// At gives an error that shows only when a setting is used its place in the file, as problems found before have.
func (c *Config) At(key string, err error) error { return c.at(key, err) }

// InstanceNames lists the names that are well-formed.
func (c *Config) InstanceNames() []string {
	var names []string
	for _, i := range c.Instances {
		if instanceName.MatchString(i.Name) {
			names = append(names, i.Name)
		}
	}
	return names
}

// needsVault reports whether any instance gets its credential from Vault.
func (c *Config) needsVault() bool {
	return len(c.Instances) == 0 || slices.ContainsFunc(c.Instances, func(i Instance) bool { return i.Source != SourceFile })
}
