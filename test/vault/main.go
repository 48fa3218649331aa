// Command vault serves a real HashiCorp Vault core, in memory or as one node of a raft cluster, for the tests and the demo.
//
// It is the server's own code (barrier, policies, AppRole, the logins by certificate, JWT and Kubernetes, KV v2, user
// lockout) behind Vault's own HTTP handler; only the storage is memory, unless -raft-dir is given, and nothing survives
// the process. It lives in a Go module of its own so that the daemon never links a line of it. Not for anything but
// tests: the root token and the unseal key are printed.
package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// ready is what a caller needs to use the server: printed as one line of JSON, and written to -ready where given.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"` // empty for a node of a cluster
	UnsealKey string `json:"unseal_key"` // hexadecimal; empty for a node of a cluster
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	readyFile := flag.String("ready", "", "write address, root token and unseal key to this file as JSON")
	tlsCert := flag.String("tls-cert", "", "serve HTTPS with this certificate (PEM)")
	tlsKey := flag.String("tls-key", "", "private key of -tls-cert (PEM)")
	untilEOF := flag.Bool("until-eof", false, "stop when standard input closes, so that the server never outlives its starter")
	var n node
	flag.StringVar(&n.dir, "raft-dir", "", "be a node of a raft cluster that keeps its storage here, and starts sealed")
	flag.StringVar(&n.id, "node-id", "", "name of the node; with -raft-dir")
	flag.StringVar(&n.clusterAddr, "cluster-addr", "", "host:port where the other nodes reach it; with -raft-dir")
	flag.IntVar(&n.multiplier, "raft-multiplier", 5, "of raft's timeouts; with -raft-dir")
	flag.Parse()
	if err := serve(*listen, *readyFile, *tlsCert, *tlsKey, *untilEOF, n); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func serve(listen, readyFile, tlsCert, tlsKey string, untilEOF bool, n node) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	scheme := "http"
	if tlsCert != "" {
		scheme = "https"
	}
	told := ready{Address: scheme + "://" + listener.Addr().String()}
	var core *vault.Core
	if n.dir != "" {
		core, err = n.core(told.Address, os.Stderr)
	} else {
		var unsealKey []byte
		core, told.RootToken, unsealKey, err = newCore()
		told.UnsealKey = hex.EncodeToString(unsealKey)
	}
	if err != nil {
		return err
	}
	server := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{},
	})}
	// As Vault's own listener does: a client may show a certificate and need not, and who signed it is for the login by
	// certificate to judge.
	server.TLSConfig = &tls.Config{ClientAuth: tls.RequestClientCert}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if untilEOF {
		go func() { io.Copy(io.Discard, os.Stdin); stop() }()
	}
	go func() { <-ctx.Done(); server.Close() }()

	if err := announce(readyFile, told); err != nil {
		return err
	}
	if tlsCert != "" {
		err = server.ServeTLS(listener, tlsCert, tlsKey)
	} else {
		err = server.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// newCore makes an initialised, unsealed core with the plugins below.
func newCore() (core *vault.Core, rootToken string, unsealKey []byte, err error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Error, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, "", nil, fmt.Errorf("storage: %w", err)
	}
	core, err = vault.NewCore(coreConfig(storage, logger))
	if err != nil {
		return nil, "", nil, fmt.Errorf("core: %w", err)
	}
	result, err := core.Initialize(context.Background(), &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return nil, "", nil, fmt.Errorf("initialize: %w", err)
	}
	if _, err := core.Unseal(result.SecretShares[0]); err != nil {
		return nil, "", nil, fmt.Errorf("unseal: %w", err)
	}
	return core, result.RootToken, result.SecretShares[0], nil
}

// rollbackPeriod keeps AppRole from tidying up its secret-ids each minute. It takes the accessor of one that is just being made for a
// leftover and removes it, and no login with that secret-id works from then on.
const rollbackPeriod = 24 * time.Hour

// coreConfig is what every core is made of.
func coreConfig(storage physical.Backend, logger hclog.Logger) *vault.CoreConfig {
	return &vault.CoreConfig{
		Physical:           storage,
		Logger:             logger,
		DisableMlock:       true,
		RollbackPeriod:     rollbackPeriod,
		BuiltinRegistry:    plugins{},
		LogicalBackends:    secretEngines,
		CredentialBackends: authMethods,
	}
}

func announce(file string, r ready) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	if file == "" {
		return nil
	}
	partial := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".partial")
	if err := os.WriteFile(partial, line, 0o600); err != nil {
		return err
	}
	return os.Rename(partial, file)
}

var (
	secretEngines = map[string]logical.Factory{"kv": kv.Factory}
	authMethods   = map[string]logical.Factory{
		"approle": approle.Factory, "cert": cert.Factory, "jwt": jwt.Factory, "kubernetes": kubernetes.Factory,
	}
)

// plugins is the registry Vault asks for its built-in plugins.
type plugins struct{}

func (plugins) of(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return secretEngines
	case consts.PluginTypeCredential:
		return authMethods
	}
	return nil
}

func (p plugins) Contains(name string, kind consts.PluginType) bool {
	return p.of(kind)[name] != nil
}

func (p plugins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	f := p.of(kind)[name]
	return func() (interface{}, error) { return f, nil }, f != nil
}

func (p plugins) Keys(kind consts.PluginType) []string {
	return slices.Sorted(maps.Keys(p.of(kind)))
}

func (plugins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (plugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
