// Package config is the configuration file: its keys, their defaults, and every check that needs neither network nor another file.
//
// It is data and checks, and opens, logs and wires nothing.
package config

import (
	"io"
	"reflect"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

const (
	// DefaultFile is where the configuration is expected.
	DefaultFile = "/etc/campaign-credsync/config.yaml"
	// DefaultSocket is where the daemon is asked unless the configuration says otherwise.
	DefaultSocket = "/run/campaign-credsync/control.sock"
	maxSize       = 64 << 10 // bytes; the YAML parser takes time quadratic in it
)

// Load reads, completes and checks the file. It uses neither the network nor any file that the configuration names. env is
// os.LookupEnv, or replaces it.
//
// What is wrong in the file is an [Error]. The Config beside it, unless nil, holds what could be read: enough for the control socket,
// where that is not empty, and for nothing else.
func Load(file string, env func(string) (string, bool)) (*Config, error) {
	text, err := regularfile.Read(file, maxSize)
	if err != nil {
		return nil, err
	}
	c, err := parse(file, text, env)
	if err != nil {
		return c, err
	}
	warnings, err := checkRights(file)
	c.Warnings = append(c.Warnings, warnings...)
	return c, err
}

// LoadForActivation is Load for who only runs steps of activation. A problem of the file that does not concern them is none: a daemon
// whose last reload was rejected still activates, and what its unit has in the environment for other keys need not be there.
func LoadForActivation(file string, env func(string) (string, bool)) (*Config, error) {
	c, err := Load(file, env)
	if c != nil && !c.places.spoilsActivation() {
		err = nil
	}
	return c, err
}

func parse(file string, text []byte, env func(string) (string, bool)) (*Config, error) {
	r := &reader{file: file, env: env, at: map[string]*token.Position{}, written: map[string]string{}, refused: map[string]bool{}, meant: map[string]bool{}}
	root := r.document(text)
	if root == nil {
		return nil, r.err()
	}
	c := &Config{places: r}
	setDefaults(reflect.ValueOf(c).Elem())
	r.group("", root, reflect.ValueOf(c).Elem())
	r.complete(c)
	r.check(c)
	return c, r.err()
}

// Config is the configuration file with every default filled in. It is plain data: whoever holds it may read it from several goroutines
// as long as nobody writes.
//
// Tags beside yaml: default is the default, as YAML, unless it depends on another key (complete); is "path" (${NAME} is replaced from the
// environment), "absolute" (and it has to start with a "/"); oneof lists the values that are allowed; needed refuses an empty value; method and source name the login methods or the source that a key belongs to.
type Config struct {
	Vault         Vault      `yaml:"vault,omitzero"` // zero where no instance uses it
	Watch         Watch      `yaml:"watch"`
	Schedule      Schedule   `yaml:"schedule"`
	Campaign      Campaign   `yaml:"campaign"`
	Drift         Drift      `yaml:"drift"`
	Instances     []Instance `yaml:"instances" default:"[]"`
	IMS           IMS        `yaml:"ims"`
	StateDir      string     `yaml:"state_dir" default:"/var/lib/campaign-credsync" is:"absolute" needed:"true"`
	ControlSocket string     `yaml:"control_socket" default:"/run/campaign-credsync/control.sock" is:"absolute" needed:"true"`
	ControlGroup  string     `yaml:"control_group"` // may ask for status and history; empty: only root and the daemon's user
	Listen        string     `yaml:"listen"`        // host:port or unix:PATH; empty: nowhere
	Notify        Notify     `yaml:"notify"`
	Log           Log        `yaml:"log"`

	// Warnings are settings that are allowed and yet probably not meant. validate prints them, run logs them.
	Warnings []string `yaml:"-"`
	places   *reader
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

// The values of Auth.Method.
const (
	MethodAppRole    = "approle"
	MethodTokenFile  = "token_file"
	MethodCert       = "cert"
	MethodKubernetes = "kubernetes"
	MethodJWT        = "jwt"
)

// Auth is the login to Vault.
type Auth struct {
	Method    string `yaml:"method" default:"approle" oneof:"approle token_file cert kubernetes jwt"`
	Mount     string `yaml:"mount"`     // where the method is mounted, no slash at either end
	Namespace string `yaml:"namespace"` // where the login happens
	// RoleID is half of a credential, so it is kept like one.
	RoleID          credential.Secret `yaml:"role_id,omitzero" method:"approle"`
	RoleIDFile      string            `yaml:"role_id_file" is:"absolute" method:"approle"`
	SecretIDFile    string            `yaml:"secret_id_file" is:"absolute" method:"approle"`
	SecretIDWrapped bool              `yaml:"secret_id_wrapped" method:"approle"` // SecretIDFile holds a wrapping token
	SecretIDWarn    time.Duration     `yaml:"secret_id_warn" default:"168h"`      // before a secret-id's end; 0: never
	TokenFile       string            `yaml:"token_file" is:"absolute" method:"token_file"`
	Role            string            `yaml:"role" method:"cert kubernetes jwt"`
	JWTFile         string            `yaml:"jwt_file" is:"absolute" method:"kubernetes jwt"`
}

// Watch is how new versions are found.
type Watch struct {
	Poll   time.Duration `yaml:"poll" default:"30s"`
	Events string        `yaml:"events" default:"auto" oneof:"auto off"`
}

// Schedule holds cron expressions, as the file has them and parsed.
type Schedule struct {
	Verify   string `yaml:"verify" default:"'@every 10m'" needed:"true"`
	Reapply  string `yaml:"reapply"`  // empty: never
	Activate string `yaml:"activate"` // empty: at once
	Timezone string `yaml:"timezone" default:"UTC"`

	VerifyAt   cron.Schedule `yaml:"-"`
	ReapplyAt  cron.Schedule `yaml:"-"` // nil: never
	ActivateAt cron.Schedule `yaml:"-"` // nil: at once
}

// CommandJWT is the value of Campaign.Command that takes a private key.
const CommandJWT = "setimsjwtauth"

// Campaign is the installation of Adobe Campaign.
type Campaign struct {
	Home      string        `yaml:"home" default:"/usr/local/neolane/nl6" is:"absolute" needed:"true"`
	Nlserver  string        `yaml:"nlserver" default:"bin/nlserver" is:"path" needed:"true"` // relative to Home, or absolute
	EnvScript string        `yaml:"env_script" default:"env.sh" is:"path"`                   // likewise; empty: none
	Command   string        `yaml:"command" default:"auto" oneof:"auto setimsoauth setimsauth setimsjwtauth"`
	Timeout   time.Duration `yaml:"timeout" default:"60s"`
	Activate  Activate      `yaml:"activate"`
	// FirstApply says what becomes of a credential that somebody else set before there was a daemon.
	FirstApply string `yaml:"first_apply" default:"hold" oneof:"hold now"`
}

// Activate is what tells Campaign's processes of a new credential.
type Activate struct {
	Reload  bool     `yaml:"reload" default:"true"`
	Restart []string `yaml:"restart" default:"[]"` // modules without their @instance
	// Via says who runs nlserver for it: the activation service, this daemon, or (auto) the service where its Socket is there.
	Via    string `yaml:"via" default:"auto" oneof:"auto socket direct"`
	Socket string `yaml:"socket" default:"/run/campaign-credsync-activate.sock" is:"absolute" needed:"true"`
	Prove  bool   `yaml:"prove" default:"true"` // a restarted module is looked for
	// MinInterval is the least time between two restarts of one module.
	MinInterval time.Duration `yaml:"min_interval" default:"0s"`
}

// Notify is the program that is told of events.
type Notify struct {
	Exec    []string      `yaml:"exec" default:"[]"` // with its arguments; empty: none
	Timeout time.Duration `yaml:"timeout" default:"10s"`
}

// Drift is what becomes of drift.
type Drift struct {
	Revert     string `yaml:"revert" default:"splice" oneof:"splice nlserver alert"`
	MaxReverts int    `yaml:"max_reverts" default:"60"` // an hour and instance
}

// Instance is one instance of Campaign, and where its credential comes from.
type Instance struct {
	Name          string `yaml:"name"`
	Mount         string `yaml:"mount,omitzero" source:"vault" needed:"true"`
	Path          string `yaml:"path,omitzero" source:"vault"`
	KVVersion     int    `yaml:"kv_version,omitzero" source:"vault"` // 1 or 2
	Source        string `yaml:"source" default:"vault" oneof:"vault file"`
	File          string `yaml:"file" is:"absolute" source:"file"`
	Fields        Fields `yaml:"fields"`
	ConfigFile    string `yaml:"config_file" is:"absolute"`
	AllowRollback bool   `yaml:"allow_rollback"`
}

// Fields tells under which name the secret holds each field of the credential.
type Fields struct {
	OrgID              string `yaml:"ims_org_id" default:"ims_org_id" needed:"true"`
	ClientID           string `yaml:"client_id" default:"client_id" needed:"true"`
	TechnicalAccountID string `yaml:"technical_account_id" default:"technical_account_id" needed:"true"`
	ClientSecret       string `yaml:"client_secret" default:"client_secret" needed:"true"`
	PrivateKey         string `yaml:"private_key" default:"private_key" needed:"true"`
}

// IMS is Adobe's login service.
type IMS struct {
	Probe    string        `yaml:"probe" default:"off" oneof:"off before_apply"`
	Patience time.Duration `yaml:"patience" default:"1m"`                             // for which a version waits for an answer
	Recheck  time.Duration `yaml:"recheck" default:"0s"`                              // between two questions about the applied credential; 0: none
	Endpoint string        `yaml:"endpoint" default:"https://ims-na1.adobelogin.com"` // no path, no slash at its end
	Scopes   []string      `yaml:"scopes" default:"[openid, AdobeID]"`
}

// Asks reports whether Adobe is asked anything.
func (i IMS) Asks() bool { return i.Probe == ProbeBeforeApply || i.Recheck > 0 }

// Log is the log's level and format.
type Log struct {
	Level  string `yaml:"level" default:"info" oneof:"debug info warn error"`
	Format string `yaml:"format" default:"auto" oneof:"auto tint text json"`
}

// Values that code asks for by name.
const (
	SourceFile = "file" // of Instance.Source
	EventsOff  = "off"  // of Watch.Events

	FirstApplyHold = "hold" // of Campaign.FirstApply

	ProbeBeforeApply = "before_apply" // of IMS.Probe
)

// At makes an [Error], with the place of key in the file, of an error that was found when the setting was used.
func (c *Config) At(key string, err error) error {
	return Error(c.places.line(key, err.Error()))
}

// Effective writes the configuration as YAML, every default filled in and the role-id masked. What no instance uses is left out.
func (c *Config) Effective(w io.Writer) error {
	return yaml.NewEncoder(w, yaml.IndentSequence(true)).Encode(c)
}

// Names tells, for each field of a credential, which field of the secret it is.
func (f Fields) Names() credential.Fields {
	return credential.Fields{
		credential.FieldOrgID:              f.OrgID,
		credential.FieldClientID:           f.ClientID,
		credential.FieldTechnicalAccountID: f.TechnicalAccountID,
		credential.FieldClientSecret:       f.ClientSecret,
		credential.FieldPrivateKey:         f.PrivateKey,
	}
}
