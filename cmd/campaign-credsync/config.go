package main

import (
	"bytes"
	"context"
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
	"campaign-credsync/sources"
)

const (
	defaultConfigFile = "/etc/campaign-credsync/config.yaml"
	maxConfigSize     = 1 << 20 // bytes
)

// config is the configuration file with every default filled in, as loadConfig leaves it. It is plain data: whoever
// holds it may read it from several goroutines as long as nobody writes.
//
// A field tagged is:"path" has ${NAME} replaced from the environment; is:"absolute" also has to start with a "/".
type config struct {
	Vault         vaultConfig      `yaml:"vault"`
	Watch         watchConfig      `yaml:"watch"`
	Schedule      scheduleConfig   `yaml:"schedule"`
	Campaign      campaignConfig   `yaml:"campaign"`
	Drift         driftConfig      `yaml:"drift"`
	Instances     []instanceConfig `yaml:"instances"`
	IMS           imsConfig        `yaml:"ims"`
	StateDir      string           `yaml:"state_dir" is:"absolute"`
	ControlSocket string           `yaml:"control_socket" is:"absolute"`
	Listen        string           `yaml:"listen"` // always empty in this release
	Log           logConfig        `yaml:"log"`

	// warnings are settings that are allowed and yet probably not meant. validate prints them, run logs them.
	warnings []string
	// place gives an error that shows only when a setting is used its place in the file, as problems found before have.
	place func(err error) error
}

type vaultConfig struct {
	Address       string     `yaml:"address"` // http or https, no path, no trailing slash
	Namespace     string     `yaml:"namespace"`
	CACert        string     `yaml:"ca_cert" is:"absolute"`     // PEM file; empty: the system's
	ClientCert    string     `yaml:"client_cert" is:"absolute"` // PEM file, always together with ClientKey
	ClientKey     string     `yaml:"client_key" is:"absolute"`
	TLSServerName string     `yaml:"tls_server_name"` // empty: the host of Address
	Auth          authConfig `yaml:"auth"`
}

type authConfig struct {
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

type watchConfig struct {
	Poll   time.Duration `yaml:"poll"`
	Events string        `yaml:"events"` // auto or off
}

// scheduleConfig holds cron expressions; parse makes them usable.
type scheduleConfig struct {
	Verify   string `yaml:"verify"`
	Reapply  string `yaml:"reapply"`  // empty: never
	Activate string `yaml:"activate"` // empty: at once
	Timezone string `yaml:"timezone"`
}

type campaignConfig struct {
	Home      string         `yaml:"home" is:"absolute"`
	Nlserver  string         `yaml:"nlserver" is:"path"`   // relative to Home, or absolute
	EnvScript string         `yaml:"env_script" is:"path"` // likewise; empty: none
	Command   string         `yaml:"command"`
	Timeout   time.Duration  `yaml:"timeout"`
	Activate  activateConfig `yaml:"activate"`
}

type activateConfig struct {
	Reload  bool     `yaml:"reload"`
	Restart []string `yaml:"restart"` // modules without their @instance
}

type driftConfig struct {
	Revert     string `yaml:"revert"`
	MaxReverts int    `yaml:"max_reverts"` // an hour and instance
}

type instanceConfig struct {
	Name          string      `yaml:"name"`
	Mount         string      `yaml:"mount"`              // mount, path and kv_version: of source vault only
	Path          string      `yaml:"path"`               //
	KVVersion     int         `yaml:"kv_version"`         // 1 or 2
	Source        string      `yaml:"source"`             // vault or file
	File          string      `yaml:"file" is:"absolute"` // of source file only
	Fields        fieldConfig `yaml:"fields"`
	ConfigFile    string      `yaml:"config_file" is:"absolute"`
	AllowRollback bool        `yaml:"allow_rollback"`
}

// fieldConfig tells under which name the secret holds each field of the credential.
type fieldConfig struct {
	OrgID              string `yaml:"ims_org_id"`
	ClientID           string `yaml:"client_id"`
	TechnicalAccountID string `yaml:"technical_account_id"`
	ClientSecret       string `yaml:"client_secret"`
	PrivateKey         string `yaml:"private_key"`
}

type imsConfig struct {
	Probe    string   `yaml:"probe"` // always off in this release
	Endpoint string   `yaml:"endpoint"`
	Scopes   []string `yaml:"scopes"`
}

type logConfig struct {
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

// defaultConfig holds every default that depends on no other key. The others are added by complete.
func defaultConfig() *config {
	return &config{
		Vault:    vaultConfig{Auth: authConfig{Method: methodAppRole, SecretIDWarn: notSaid}},
		Watch:    watchConfig{Poll: 30 * time.Second, Events: eventsAuto},
		Schedule: scheduleConfig{Verify: "@every 10m", Timezone: "UTC"},
		Campaign: campaignConfig{
			Home:      "/usr/local/neolane/nl6",
			Nlserver:  "bin/nlserver",
			EnvScript: "env.sh",
			Command:   "auto",
			Timeout:   60 * time.Second,
			Activate:  activateConfig{Reload: true, Restart: []string{}},
		},
		Drift: driftConfig{Revert: "splice", MaxReverts: 60},
		IMS: imsConfig{
			Probe:    "off",
			Endpoint: "https://ims-na1.adobelogin.com",
			Scopes:   []string{"openid", "AdobeID"},
		},
		Instances:     []instanceConfig{},
		StateDir:      "/var/lib/campaign-credsync",
		ControlSocket: "/run/campaign-credsync/control.sock",
		Log:           logConfig{Level: "info", Format: "auto"},
	}
}

// setDefaults is called on each instance before what the file says about it is read.
func (i *instanceConfig) setDefaults() {
	*i = instanceConfig{
		Mount:     "secret",
		KVVersion: 2,
		Source:    sourceVault,
		Fields: fieldConfig{
			OrgID:              credential.FieldOrgID,
			ClientID:           credential.FieldClientID,
			TechnicalAccountID: credential.FieldTechnicalAccountID,
			ClientSecret:       credential.FieldClientSecret,
			PrivateKey:         credential.FieldPrivateKey,
		},
	}
}

// complete adds the defaults that depend on other keys.
func (c *config) complete() {
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

// schedules are the parsed expressions of scheduleConfig; one that is empty is nil.
type schedules struct {
	Verify, Reapply, Activate cron.Schedule
}

// parse cannot fail on a configuration that loadConfig returned, except where the time zone database vanished since.
func (s scheduleConfig) parse() (schedules, error) {
	var parsed schedules
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

// loadConfig reads, completes and checks the file. It touches neither the network nor any file that the configuration
// names. The error is a *configError and lists every problem, none of them with a value that may be secret.
// env is os.LookupEnv, or what stands for it.
func loadConfig(file string, env func(string) (string, bool)) (*config, error) {
	c, bad := readConfig(file, env)
	if bad != nil {
		return nil, bad
	}
	return c, nil
}

// readConfig is loadConfig for those who can do with a part: beside the problems it returns what could be read, which is
// never nil and must not be used for more than showing names and finding the control socket.
func readConfig(file string, env func(string) (string, bool)) (*config, *configError) {
	text, err := readConfigFile(file)
	if err != nil {
		return defaultConfig(), &configError{file: file, whole: err}
	}
	return parseConfig(file, text, env)
}

func parseConfig(file string, text []byte, env func(string) (string, bool)) (*config, *configError) {
	c := defaultConfig()
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
		return c, &configError{file: file, problems: r.sorted()}
	}
	c.place = func(err error) error {
		setting, ok := errors.AsType[*sources.SettingError](err)
		if !ok {
			return err
		}
		return &configError{file: file, problems: []problem{{r.where(setting.Key), setting.Key, setting.Err.Error()}}}
	}
	return c, nil
}

func readConfigFile(file string) ([]byte, error) {
	text, err := within(context.Background(), configLimit, "reading it", func() ([]byte, error) {
		return regularfile.Read(file, maxConfigSize)
	})
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
func (c *config) effective(w io.Writer) error {
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
func (i instanceConfig) MarshalYAML() (any, error) {
	var foreign []string
	if i.Source == sourceFile {
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

// needsVault reports whether any instance gets its credential from Vault.
func (c *config) needsVault() bool {
	return len(c.Instances) == 0 || slices.ContainsFunc(c.Instances, func(i instanceConfig) bool { return i.Source != sourceFile })
}
