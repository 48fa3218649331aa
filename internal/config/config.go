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
// environment), "absolute" (and it has to start with a "/"); oneof lists the values that are allowed; needed refuses an empty value; method
// and source name the login methods or the source that a key belongs to; help is what config.yaml(5) and docs/configure.md say of it.
type Config struct {
	Vault         Vault      `yaml:"vault,omitzero"` // zero where no instance uses it
	Watch         Watch      `yaml:"watch"`
	Schedule      Schedule   `yaml:"schedule"`
	Campaign      Campaign   `yaml:"campaign"`
	Drift         Drift      `yaml:"drift"`
	Instances     []Instance `yaml:"instances" default:"[]"`
	IMS           IMS        `yaml:"ims"`
	StateDir      string     `yaml:"state_dir" default:"/var/lib/campaign-credsync" is:"absolute" needed:"true" help:"the unit's StateDirectory"`
	ControlSocket string     `yaml:"control_socket" default:"/run/campaign-credsync/control.sock" is:"absolute" needed:"true" help:"in the unit's RuntimeDirectory"`
	ControlGroup  string     `yaml:"control_group" help:"members may ask for status and history, e.g. monitoring; empty: only root and the daemon's user"`
	Listen        string     `yaml:"listen" help:"127.0.0.1:9809 or unix:/run/campaign-credsync/http.sock: page, /metrics, /healthz, /readyz; empty: none"`
	Notify        Notify     `yaml:"notify"`
	Log           Log        `yaml:"log"`

	// Warnings are settings that are allowed and yet probably not meant. validate prints them, run logs them.
	Warnings []string `yaml:"-"`
	places   *reader
}

// Vault is the connection to Vault.
type Vault struct {
	// Address has no path and no trailing slash.
	Address       string `yaml:"address" help:"needed; or VAULT_ADDR"`
	Namespace     string `yaml:"namespace" help:"Vault Enterprise and HCP; or VAULT_NAMESPACE"`
	CACert        string `yaml:"ca_cert" is:"absolute" help:"PEM file of Vault's CA; empty: the system's; or VAULT_CACERT"`
	ClientCert    string `yaml:"client_cert" is:"absolute" help:"PEM files for mutual TLS, both or none, read anew for each connection; or VAULT_CLIENT_CERT, VAULT_CLIENT_KEY"`
	ClientKey     string `yaml:"client_key" is:"absolute" help:"the key to client_cert"`
	TLSServerName string `yaml:"tls_server_name" help:"name in Vault's certificate, if it is not the address's host; or VAULT_TLS_SERVER_NAME"`
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
	Method string `yaml:"method" default:"approle" oneof:"approle token_file cert kubernetes jwt"`
	// Mount is where the method is mounted, no slash at either end.
	Mount     string `yaml:"mount" help:"default: the method's name"`
	Namespace string `yaml:"namespace" help:"where the login happens; empty: vault.namespace"`
	// RoleID is half of a credential, so it is kept like one.
	RoleID          credential.Secret `yaml:"role_id,omitzero" method:"approle" help:"or name a file in role_id_file. A role for each container: a few refused secret-ids lock it for everybody"`
	RoleIDFile      string            `yaml:"role_id_file" is:"absolute" method:"approle" help:"In place of role_id"`
	SecretIDFile    string            `yaml:"secret_id_file" is:"absolute" method:"approle" help:"The unit's LoadCredential copies it there at the start: restart after a change. Leave it out for a role with bind_secret_id=false"`
	SecretIDWrapped bool              `yaml:"secret_id_wrapped" method:"approle" help:"true: the file holds a wrapping token of a secret-id (vault write -wrap-ttl=... -f .../secret-id)"`
	SecretIDWarn    time.Duration     `yaml:"secret_id_warn" default:"168h" help:"warn so long before the secret-id ends, where the policy allows to look it up; 0s: never"`
	TokenFile       string            `yaml:"token_file" is:"absolute" method:"token_file" help:"For method token_file, in place of role_id and secret_id_file. The token is never revoked"`
	Role            string            `yaml:"role" method:"cert kubernetes jwt" help:"For method cert, which shows vault.client_cert: the role to log in with; empty: any that fits. For methods kubernetes and jwt: needed"`
	JWTFile         string            `yaml:"jwt_file" is:"absolute" method:"kubernetes jwt" help:"For methods kubernetes and jwt: the file of the signed token, read at each login. Default for kubernetes: /var/run/secrets/kubernetes.io/serviceaccount/token"`
}

// Watch is how new versions are found.
type Watch struct {
	Poll   time.Duration `yaml:"poll" default:"30s" help:"1s to 1h, jittered by 10 %"`
	Events string        `yaml:"events" default:"auto" oneof:"auto off" help:"auto: Vault pushes new versions of KV version 2 where it can, beside the polls"`
}

// Schedule holds cron expressions, as the file has them and parsed.
type Schedule struct {
	Verify   string `yaml:"verify" default:"'@every 10m'" needed:"true" help:"full check of disk and Vault for every instance"`
	Reapply  string `yaml:"reapply" help:"run nlserver again although all is in sync; empty: never"`
	Activate string `yaml:"activate" help:"hold activation until then, e.g. \"0 3 * * *\"; empty: at once"`
	Timezone string `yaml:"timezone" default:"UTC" help:"in any other a time may come twice on one day of the year, and not at all on another"`

	VerifyAt   cron.Schedule `yaml:"-"`
	ReapplyAt  cron.Schedule `yaml:"-"` // nil: never
	ActivateAt cron.Schedule `yaml:"-"` // nil: at once
}

// CommandJWT is the value of Campaign.Command that takes a private key.
const CommandJWT = "setimsjwtauth"

// Campaign is the installation of Adobe Campaign.
type Campaign struct {
	Home      string        `yaml:"home" default:"/usr/local/neolane/nl6" is:"absolute" needed:"true" help:"where Campaign is installed; also ReadWritePaths= of the unit"`
	Nlserver  string        `yaml:"nlserver" default:"bin/nlserver" is:"path" needed:"true" help:"relative to home"`
	EnvScript string        `yaml:"env_script" default:"env.sh" is:"path" help:"sourced before nlserver; relative to home; \"\": none"`
	Command   string        `yaml:"command" default:"auto" oneof:"auto setimsoauth setimsauth setimsjwtauth"`
	Timeout   time.Duration `yaml:"timeout" default:"60s" help:"for one nlserver; keep the unit's TimeoutStopSec above it"`
	Activate  Activate      `yaml:"activate"`
	// FirstApply says what becomes of a credential that somebody else set before there was a daemon.
	FirstApply string `yaml:"first_apply" default:"hold" oneof:"hold now" help:"hold: a credential that is there before the first apply stays until sync, adopt or a newer version"`
}

// Activate is what tells Campaign's processes of a new credential.
type Activate struct {
	Reload      bool          `yaml:"reload" default:"true" help:"nlserver config -reload"`
	Restart     []string      `yaml:"restart" default:"[]" help:"modules without their instance, e.g. [pipelined, web]"`
	Via         string        `yaml:"via" default:"auto" oneof:"auto socket direct" help:"who runs nlserver for that: the activation service, or the daemon; auto: the socket where it is there"`
	Socket      string        `yaml:"socket" default:"/run/campaign-credsync-activate.sock" is:"absolute" needed:"true" help:"ListenStream= of campaign-credsync-activate.socket"`
	Prove       bool          `yaml:"prove" default:"true" help:"after a restart: does the module run again, in a new process, outside of the daemon's unit"`
	MinInterval time.Duration `yaml:"min_interval" default:"0s" help:"least time between two restarts of a module, up to 24h, also over restarts of the daemon"`
}

// Notify is the program that is told of events.
type Notify struct {
	Exec    []string      `yaml:"exec" default:"[]" help:"a program and its arguments, e.g. [/usr/local/bin/page]; gets each event as JSON on standard input"`
	Timeout time.Duration `yaml:"timeout" default:"10s" help:"then it is killed"`
}

// Drift is what becomes of drift.
type Drift struct {
	Revert     string `yaml:"revert" default:"splice" oneof:"splice nlserver alert" help:"splice: put the attributes back; nlserver: apply again; alert: only report"`
	MaxReverts int    `yaml:"max_reverts" default:"60" help:"in an hour, of an instance; after more, reverting stops for the hour"`
}

// Instance is one instance of Campaign, and where its credential comes from.
type Instance struct {
	Name          string `yaml:"name" help:"needed; the NAME in conf/config-NAME.xml"`
	Mount         string `yaml:"mount,omitzero" source:"vault" needed:"true" help:"default: secret; of the KV engine; may have slashes, such as team/a/kv"`
	Path          string `yaml:"path,omitzero" source:"vault" help:"needed; within the mount, without \"data/\""`
	KVVersion     int    `yaml:"kv_version,omitzero" source:"vault" help:"default: 2; 1 keeps no versions"`
	Source        string `yaml:"source" default:"vault" oneof:"vault file"`
	File          string `yaml:"file" is:"absolute" source:"file" help:"For source: file, in place of mount, path and kv_version. A JSON object with the same fields"`
	Fields        Fields `yaml:"fields" help:"its name in the secret"`
	ConfigFile    string `yaml:"config_file" is:"absolute" help:"default: <home>/conf/config-<name>.xml"`
	AllowRollback bool   `yaml:"allow_rollback" help:"true: also apply a version that is older than the applied one"`
}

// Fields tells under which name the secret holds each field of the credential.
type Fields struct {
	OrgID              string `yaml:"ims_org_id" default:"ims_org_id" needed:"true"`
	ClientID           string `yaml:"client_id" default:"client_id" needed:"true"`
	TechnicalAccountID string `yaml:"technical_account_id" default:"technical_account_id" needed:"true"`
	ClientSecret       string `yaml:"client_secret" default:"client_secret" needed:"true"`
	PrivateKey         string `yaml:"private_key" default:"private_key" needed:"true" help:"only for JWT credentials, which Adobe has ended"`
}

// IMS is Adobe's login service.
type IMS struct {
	Probe    string        `yaml:"probe" default:"off" oneof:"off before_apply" help:"a token is fetched with each new version; one that Adobe refuses is not applied"`
	Patience time.Duration `yaml:"patience" default:"1m" help:"so long an answer that says nothing about the secret (network, 429, 5xx) holds up the apply; 1s to 1h"`
	Recheck  time.Duration `yaml:"recheck" default:"0s" help:"e.g. 24h: ask so often whether Adobe still accepts the applied one, jittered by 10 %; 0s: never, or 1m to 720h"`
	Endpoint string        `yaml:"endpoint" default:"https://ims-na1.adobelogin.com" help:"no path"`
	Scopes   []string      `yaml:"scopes" default:"[openid, AdobeID]" help:"those of the credential in Developer Console"`
}

// Asks reports whether Adobe is asked anything.
func (i IMS) Asks() bool { return i.Probe == ProbeBeforeApply || i.Recheck > 0 }

// Log is the log's level and format.
type Log struct {
	Level  string `yaml:"level" default:"info" oneof:"debug info warn error"`
	Format string `yaml:"format" default:"auto" oneof:"auto tint text json" help:"auto: tint on a terminal, else text"`
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
