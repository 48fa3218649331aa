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
	"time"

	"github.com/goccy/go-yaml"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

const (
	// DefaultFile is where the configuration is expected.
	DefaultFile = "/etc/campaign-credsync/config.yaml"
	maxSize     = 64 << 10 // bytes; the YAML parser takes time quadratic in it
)

// Load reads, completes and checks the file. It uses neither the network nor any file that the configuration names. env is
// os.LookupEnv, or replaces it.
//
// An error is an *Error. It lists every problem, and shows no value that may be secret. The Config beside it is not nil and holds what
// could be read: enough for instance names and the control socket, and for nothing else.
func Load(file string, env func(string) (string, bool)) (*Config, error) {
	text, err := readFile(file)
	if err != nil {
		return defaults(), &Error{file: file, whole: err}
	}
	return parse(file, text, env)
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

func parse(file string, text []byte, env func(string) (string, bool)) (*Config, error) {
	c := defaults()
	r := &reader{env: env, at: map[string]position{}, refused: map[string]bool{}, from: map[string]string{}}
	if r.read(text, c) {
		r.complete(c)
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

// Config is the configuration file with every default filled in. It is plain data: whoever holds it may read it from several goroutines
// as long as nobody writes.
//
// Tags beside yaml: is "path" (${NAME} is replaced from the environment), "absolute" (and it has to start with a "/"); oneof lists the
// values that are allowed; needed refuses an empty value; method and source name the login methods or the source that a key belongs to.
type Config struct {
	Vault         Vault      `yaml:"vault,omitzero"` // zero where no instance uses it
	Watch         Watch      `yaml:"watch"`
	Schedule      Schedule   `yaml:"schedule"`
	Campaign      Campaign   `yaml:"campaign"`
	Drift         Drift      `yaml:"drift"`
	Instances     []Instance `yaml:"instances"`
	IMS           IMS        `yaml:"ims"`
	StateDir      string     `yaml:"state_dir" is:"absolute" needed:"true"`
	ControlSocket string     `yaml:"control_socket" is:"absolute" needed:"true"`
	Listen        string     `yaml:"listen"` // always empty in this release
	Log           Log        `yaml:"log"`

	// Warnings are settings that are allowed and yet probably not meant. validate prints them, run logs them.
	Warnings []string `yaml:"-"`
	at       func(key string, err error) error
}

// Vault is the connection to Vault.
type Vault struct {
	Address       string `yaml:"address"` // http or https, no path, no trailing slash
	Namespace     string `yaml:"namespace"`
	CACert        string `yaml:"ca_cert" is:"absolute"`     // PEM file; empty: the system's
	ClientCert    string `yaml:"client_cert" is:"absolute"` // PEM file, always together with ClientKey
	ClientKey     string `yaml:"client_key" is:"absolute"`
	TLSServerName string `yaml:"tls_server_name"` // empty: the host of Address
	Auth          Auth   `yaml:"auth"`
}

// Auth is the login to Vault.
type Auth struct {
	Method    string `yaml:"method" oneof:"approle token_file cert kubernetes jwt"`
	Mount     string `yaml:"mount"`     // where the method is mounted, no slash at either end
	Namespace string `yaml:"namespace"` // where the login happens
	// RoleID is half of a credential, so it is kept like one.
	RoleID          credential.Secret `yaml:"role_id" method:"approle"`
	RoleIDFile      string            `yaml:"role_id_file" is:"absolute" method:"approle"`
	SecretIDFile    string            `yaml:"secret_id_file" is:"absolute" method:"approle"`
	SecretIDWrapped bool              `yaml:"secret_id_wrapped" method:"approle"` // SecretIDFile holds a wrapping token
	SecretIDWarn    time.Duration     `yaml:"secret_id_warn" method:"approle"`    // before a secret-id's end; 0: never
	TokenFile       string            `yaml:"token_file" is:"absolute" method:"token_file"`
	Role            string            `yaml:"role" method:"cert kubernetes jwt"`
	JWTFile         string            `yaml:"jwt_file" is:"absolute" method:"kubernetes jwt"`
}

// Watch is how new versions are found.
type Watch struct {
	Poll   time.Duration `yaml:"poll"`
	Events string        `yaml:"events" oneof:"auto off"`
}

// Schedule holds cron expressions, as the file has them and parsed.
type Schedule struct {
	Verify   string `yaml:"verify"`
	Reapply  string `yaml:"reapply"`  // empty: never
	Activate string `yaml:"activate"` // empty: at once
	Timezone string `yaml:"timezone"`

	Parsed Schedules `yaml:"-"`
}

// Campaign is the installation of Adobe Campaign.
type Campaign struct {
	Home      string        `yaml:"home" is:"absolute" needed:"true"`
	Nlserver  string        `yaml:"nlserver" is:"path" needed:"true"` // relative to Home, or absolute
	EnvScript string        `yaml:"env_script" is:"path"`             // likewise; empty: none
	Command   string        `yaml:"command" oneof:"auto setimsoauth setimsauth setimsjwtauth"`
	Timeout   time.Duration `yaml:"timeout"`
	Activate  Activate      `yaml:"activate"`
}

// Activate is what tells Campaign's processes of a new credential.
type Activate struct {
	Reload  bool     `yaml:"reload"`
	Restart []string `yaml:"restart"` // modules without their @instance
}

// Drift is what becomes of drift.
type Drift struct {
	Revert     string `yaml:"revert" oneof:"splice nlserver alert"`
	MaxReverts int    `yaml:"max_reverts"` // an hour and instance
}

// Instance is one instance of Campaign, and where its credential comes from.
type Instance struct {
	Name          string `yaml:"name"`
	Mount         string `yaml:"mount,omitzero" source:"vault"`
	Path          string `yaml:"path,omitzero" source:"vault"`
	KVVersion     int    `yaml:"kv_version,omitzero" source:"vault"` // 1 or 2
	Source        string `yaml:"source" oneof:"vault file"`
	File          string `yaml:"file" is:"absolute" source:"file"`
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

// IMS is Adobe's login service.
type IMS struct {
	Probe    string   `yaml:"probe"` // always off in this release
	Endpoint string   `yaml:"endpoint"`
	Scopes   []string `yaml:"scopes"`
}

// Log is the log's level and format.
type Log struct {
	Level  string `yaml:"level" oneof:"debug info warn error"`
	Format string `yaml:"format" oneof:"auto tint text json"`
}

// Values that code asks for by name.
const (
	SourceFile = "file" // of Instance.Source
	EventsOff  = "off"  // of Watch.Events
)

// At makes an *Error, with the place of key in the file, of an error that was found when the setting was used.
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

// Effective writes the configuration as YAML, every default filled in and the role-id masked. What no instance uses is left out.
func (c *Config) Effective(w io.Writer) error {
	mask := func(s credential.Secret) ([]byte, error) {
		if s.Reveal() == "" {
			return []byte(`""`), nil
		}
		return []byte(`"[set]"`), nil
	}
	var out bytes.Buffer
	if err := yaml.NewEncoder(&out, yaml.IndentSequence(true), yaml.CustomMarshaler(mask)).Encode(c); err != nil {
		return fmt.Errorf("write the effective configuration: %w", err)
	}
	_, err := w.Write(out.Bytes())
	return err
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
