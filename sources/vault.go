// Package sources reads the credential from where it is kept: a secret of a KV mount of HashiCorp Vault (or OpenBao), or a
// JSON file. Of version 2 of the engine it looks at the metadata, and reads the secret only when its asker needs that
// version; version 1 and a file have nothing lighter than the secret itself.
//
// A source never retries by itself: it tells what it found or why it found nothing, at once (a file that has just changed is
// left alone for a moment first), and remembers how long Vault must be left alone. When to ask again is its caller's
// business; [Vault.Subscribe] only tells when that is worth while. It decides nothing about what is applied, and knows
// nothing about Campaign.
package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
)

// VaultConfig says where Vault is and how to log in to it. The environment is not consulted: whoever wants VAULT_ADDR
// and its like merges them in before.
type VaultConfig struct {
	Address       string // required: see HostURL
	Namespace     string // empty: none (Vault Community and OpenBao's root)
	CACert        string // PEM file of the authorities to trust; empty: the system's
	ClientCert    string // PEM file, together with ClientKey; empty: none
	ClientKey     string
	TLSServerName string // name to verify; empty: the host of Address
	Auth          Auth
	// StateDir is where a refused secret-id is remembered, by digest, and an unwrapped one kept; empty: in memory only, and
	// nothing is unwrapped.
	StateDir string
	// MakeStateDir makes StateDir where it is not there, and returns the digest key that belongs to it. It is called when
	// there is something to remember, or to look up. nil: the directory must be there.
	MakeStateDir func() (digestKey []byte, err error)
	// OnlyReads is for who changes nothing: StateDir is written to only when a login was refused or cut off, others note
	// it before, as they may be killed; and no secret-id is unwrapped.
	OnlyReads bool
	DigestKey []byte       // key of that digest, and of those that are versions of a KV version 1 mount; required with StateDir
	Logger    *slog.Logger // nil discards
}

// SettingError is what is wrong with one setting, found when it was to be used.
type SettingError struct {
	Key string // of the configuration, such as vault.ca_cert
	Err error
}

func (e *SettingError) Error() string { return e.Key + ": " + e.Err.Error() }

func (e *SettingError) Unwrap() error { return e.Err }

// Vault is one Vault server and the one token that all secrets read from it share. All methods may be called
// concurrently.
type Vault struct {
	made      made
	address   string
	logger    *slog.Logger
	transport *http.Transport
	reads     *api.Client // without a token; its copies carry one
	gate      *gate
	session   *session
	patience  patience
	method    loginMethod // nil for token_file
	watched   []*fileWatch
	watching  chan struct{} // 1 slot: the call of Run that watches
	digestKey []byte
	proof     proof

	eventTimes eventTimes
	unreadable string // a certificate of vault.ca_cert, and what to do; empty: none

	retries atomic.Int64 // counts Retry, so that each KV sees it
}

// requestTimeout bounds one request, its answer's body included; a read, after others that were not answered.
const requestTimeout = 35 * time.Second

// NewVault checks the configuration and reads the certificates. It talks to nobody: a Vault that is down is found by
// the first Poll.
func NewVault(config VaultConfig) (*Vault, error) {
	at, problem := HostURL(config.Address)
	if problem != "" {
		return nil, errors.New("vault.address: " + problem)
	}
	address := at.String()
	if config.StateDir != "" && len(config.DigestKey) == 0 {
		return nil, errors.New("vault: a state directory needs a digest key")
	}
	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	made := makingOf(config)
	pair, err := newClientPair(config, logger)
	if err != nil {
		return nil, err
	}
	transport, unreadable, err := newTransport(config, pair)
	if err != nil {
		return nil, err
	}
	if unreadable != "" {
		logger.Warn("an authority's certificate is passed over", "reason", "vault.ca_cert: "+unreadable)
	}
	gate := &gate{}
	client, err := newClient(address, &careful{next: transport, gate: gate})
	if err != nil {
		return nil, err
	}
	auth := config.Auth
	if auth.Method == "" {
		auth.Method = methodAppRole
	}
	if auth.Mount == "" {
		auth.Mount = auth.Method
	}
	auth.Mount = strings.Trim(auth.Mount, "/")
	if err := checkPath(auth.Mount); err != nil {
		return nil, fmt.Errorf("vault.auth.mount: %w", err)
	}
	if auth.Namespace == "" {
		auth.Namespace = config.Namespace
	}
	v := &Vault{
		watching:   make(chan struct{}, 1),
		made:       made,
		address:    address,
		logger:     logger,
		transport:  transport,
		unreadable: unreadable,
		digestKey:  config.DigestKey,
		gate:       gate,
		reads:      withNamespace(client, config.Namespace),
		eventTimes: defaultEventTimes,
	}
	aside, err := v.aside()
	if err != nil {
		return nil, err
	}
	if auth.Method == methodCert { // a connection that was kept shows the certificate of its beginning
		client = aside
	}
	v.session = &session{
		vault:  v,
		logins: withNamespace(client, auth.Namespace),
		turn:   make(chan struct{}, 1),
		refused: &refusals{
			dir: config.StateDir,
			key: config.DigestKey, make: config.MakeStateDir, late: config.OnlyReads,
		},
	}
	if err := v.useMethod(config, auth, pair); err != nil {
		return nil, err
	}
	if auth.Method == methodAppRole && auth.SecretIDFile != "" && auth.SecretIDWarn > 0 && !config.OnlyReads {
		v.session.ends = newSecretIDEnd(v, auth, withNamespace(aside, auth.Namespace))
	}
	return v, nil
}

// aside makes a client whose requests have connections of their own.
func (v *Vault) aside() (*api.Client, error) {
	own := v.transport.Clone()
	own.DisableKeepAlives = true
	return newClient(v.address, &careful{next: own, gate: v.gate})
}

// useMethod is the part of NewVault that differs between the logins.
func (v *Vault) useMethod(config VaultConfig, auth Auth, pair *clientPair) (err error) {
	var method loginMethod
	switch auth.Method {
	case methodAppRole:
		method, err = newAppRole(v.address, auth, v.wrapping(config, auth))
		v.session.refused.lock = auth.SecretIDFile // the state directory may not be there yet
		v.watch(auth.SecretIDFile)
	case methodCert:
		method, err = newCertLogin(v.address, auth, pair)
		v.watch(pair.files()...)
	case methodKubernetes, methodJWT:
		method, err = newJWTLogin(v.address, auth)
		v.watch(auth.JWTFile)
	case methodTokenFile:
		if auth.TokenFile == "" {
			err = errors.New("vault.auth.token_file: required for method token_file")
		}
		v.session.tokenFile = &tokenFile{path: auth.TokenFile}
		v.watch(auth.TokenFile)
	default:
		err = fmt.Errorf("vault.auth.method: %q is not known (approle, token_file, cert, kubernetes, jwt)", auth.Method)
	}
	v.method = method
	return err
}

// wrapping returns what unwraps the secret-id, nil where it is not wrapped.
func (v *Vault) wrapping(config VaultConfig, auth Auth) *wrapping {
	if !auth.SecretIDWrapped {
		return nil
	}
	v.session.wrapping = &wrapping{
		vault: v, client: v.session.logins, digest: v.session.refused.digest,
		file: auth.SecretIDFile, mount: auth.Mount, namespace: auth.Namespace,
		kept: keptIDs{dir: config.StateDir, onlyReads: config.OnlyReads},
	}
	return v.session.wrapping
}

func (v *Vault) watch(files ...string) {
	for _, file := range files {
		if file == "" {
			continue // a role that binds no secret-id
		}
		v.watched = append(v.watched, newFileWatch(file))
	}
}

// Soon forgets the waits after failures, for somebody who wants an answer now. A refused secret-id stays refused.
func (v *Vault) Soon() {
	v.gate.open()
	v.session.soon()
}

// Retry is the operator's word: every wait is forgotten, and a refused secret-id may be tried once more, if it was not
// tried so often in a row that the role is near its lock.
func (v *Vault) Retry() {
	v.retries.Add(1)
	v.gate.open()
	v.session.retry()
	v.proof.ask()
}

// TokenExpires tells when the token in use ends; zero when there is none, it never ends or its end is not known.
func (v *Vault) TokenExpires() time.Time {
	t := v.session.get()
	if t == nil {
		return time.Time{}
	}
	return t.expires
}

// Close revokes the token that this process logged in for, never one from a token file, and closes the connections.
// After it Poll answers with an error. Run, Subscribe and the polls under way should have ended before.
func (v *Vault) Close(ctx context.Context) error {
	defer v.transport.CloseIdleConnections()
	return v.session.close(ctx)
}

// environment guards the moment in which newClient hides variables.
var environment sync.Mutex

// newClient makes a client of vault/api that no variable of the environment has a say in. api.NewClient reads all of
// VAULT_* whatever configuration it is given, and fails on a malformed one, so they are hidden while it runs.
func newClient(address string, transport http.RoundTripper) (*api.Client, error) {
	environment.Lock()
	defer environment.Unlock()
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "VAULT_") {
			os.Unsetenv(name)
			defer os.Setenv(name, value)
		}
	}
	client, err := api.NewClient(&api.Config{
		Address:          address,
		HttpClient:       &http.Client{Transport: transport, CheckRedirect: lastResponse},
		MaxRetries:       0,
		CheckRetry:       func(context.Context, *http.Response, error) (bool, error) { return false, nil },
		DisableRedirects: true,
	})
	if err != nil {
		return nil, fmt.Errorf("vault client: %w", err)
	}
	// The default consults VAULT_WRAP_TTL at every request.
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	return client, nil
}

func lastResponse(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// withNamespace returns a client of its own for namespace, and, through withToken, for a token: vault/api keeps both in
// the client, not in the request.
func withNamespace(client *api.Client, namespace string) *api.Client {
	return client.WithNamespace(namespace)
}

func withToken(client *api.Client, token credential.Secret) *api.Client {
	own := client.WithNamespace(client.Namespace())
	own.SetToken(token.Reveal())
	return own
}
