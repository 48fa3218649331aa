// Command vaultevents serves the last HashiCorp Vault core that pushes events without an Enterprise licence, in memory,
// for the tests of push.
//
// It does what test/vault does, with the experiment events.alpha1 switched on. Vault of that age and of today do not
// fit into one Go module, hence a second one.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// ready is what a caller needs to use the server: printed as one line of JSON.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"` // hexadecimal
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	untilEOF := flag.Bool("until-eof", false, "stop when standard input closes, so that the server never outlives its starter")
	flag.Parse()
	if err := serve(*listen, *untilEOF); err != nil {
		fmt.Fprintln(os.Stderr, "vaultevents:", err)
		os.Exit(1)
	}
}

func serve(listen string, untilEOF bool) error {
	core, rootToken, unsealKey, err := newCore()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{},
	})}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if untilEOF {
		go func() { io.Copy(io.Discard, os.Stdin); stop() }()
	}
	go func() { <-ctx.Done(); server.Close() }()

	line, err := json.Marshal(ready{"http://" + listener.Addr().String(), rootToken, hex.EncodeToString(unsealKey)})
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newCore makes an initialised, unsealed core with the kv and approle plugins.
func newCore() (core *vault.Core, rootToken string, unsealKey []byte, err error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Error, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, "", nil, fmt.Errorf("storage: %w", err)
	}
	core, err = vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		Logger:             logger,
		DisableMlock:       true,
		RollbackPeriod:     24 * time.Hour, // as in test/vault, and for the same reason
		Experiments:        []string{"events.alpha1"},
		BuiltinRegistry:    plugins{},
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory},
		CredentialBackends: map[string]logical.Factory{"approle": approle.Factory},
	})
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

// plugins is the registry Vault asks for its built-in plugins.
type plugins struct{}

func (plugins) factory(name string, kind consts.PluginType) logical.Factory {
	switch {
	case name == "kv" && kind == consts.PluginTypeSecrets:
		return kv.Factory
	case name == "approle" && kind == consts.PluginTypeCredential:
		return approle.Factory
	}
	return nil
}

func (p plugins) Contains(name string, kind consts.PluginType) bool {
	return p.factory(name, kind) != nil
}

func (p plugins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	f := p.factory(name, kind)
	return func() (interface{}, error) { return f, nil }, f != nil
}

func (plugins) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeSecrets:
		return []string{"kv"}
	case consts.PluginTypeCredential:
		return []string{"approle"}
	}
	return nil
}

func (plugins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (plugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
