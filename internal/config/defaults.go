package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

// defaults holds every default that depends on no other key. The others are added by complete.
func defaults() *Config {
	return &Config{
		Vault:    Vault{Auth: Auth{Method: "approle", SecretIDWarn: 7 * 24 * time.Hour}},
		Watch:    Watch{Poll: 30 * time.Second, Events: "auto"},
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
		Source: "vault",
		Fields: Fields{
			OrgID:              credential.FieldOrgID,
			ClientID:           credential.FieldClientID,
			TechnicalAccountID: credential.FieldTechnicalAccountID,
			ClientSecret:       credential.FieldClientSecret,
			PrivateKey:         credential.FieldPrivateKey,
		},
	}
}

// complete adds the defaults that depend on other keys, and what Vault's own variables say.
func (r *reader) complete(c *Config) {
	for n := range c.Instances {
		i, key := &c.Instances[n], fmt.Sprintf("instances[%d]", n)
		if i.Source != SourceFile && r.at[key+".mount"] == nil {
			i.Mount = "secret"
		}
		if i.Source != SourceFile && r.at[key+".kv_version"] == nil {
			i.KVVersion = 2
		}
		if i.ConfigFile == "" {
			i.ConfigFile = filepath.Join(c.Campaign.Home, "conf", "config-"+i.Name+".xml")
		}
	}
	if !c.needsVault() {
		if r.at["vault"] != nil {
			c.Warnings = append(c.Warnings, "vault: is not used, as every instance has source: file")
		}
		c.Vault = Vault{}
		return
	}
	r.fillFromEnvironment(&c.Vault)
	a := &c.Vault.Auth
	if a.Mount == "" {
		a.Mount = a.Method
	}
	if a.Namespace == "" {
		a.Namespace = c.Vault.Namespace
	}
	if a.JWTFile == "" && a.Method == "kubernetes" { // where Kubernetes puts a pod's service account token
		a.JWTFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	}
}

// needsVault reports whether any instance gets its credential from Vault.
func (c *Config) needsVault() bool {
	return len(c.Instances) == 0 || slices.ContainsFunc(c.Instances, func(i Instance) bool { return i.Source != SourceFile })
}

// fillFromEnvironment takes what the file does not say about the connection from Vault's own variables. An empty value in
// the file says nothing. The client's certificate and key are one thing: they never come half from here, half from there.
func (r *reader) fillFromEnvironment(v *Vault) {
	fill := func(into *string, key, variable string, isPath bool) {
		if value, _ := r.env(variable); *into == "" && !r.refused[key] {
			*into = value
			r.refuseIf(isPath && value != "" && value[0] != '/', key, "(from %s) %s", variable, mustBeAbsolute)
		}
	}
	fill(&v.Address, "vault.address", "VAULT_ADDR", false)
	fill(&v.Namespace, "vault.namespace", "VAULT_NAMESPACE", false)
	fill(&v.CACert, "vault.ca_cert", "VAULT_CACERT", true)
	fill(&v.TLSServerName, "vault.tls_server_name", "VAULT_TLS_SERVER_NAME", false)
	if v.ClientCert == "" && v.ClientKey == "" {
		fill(&v.ClientCert, "vault.client_cert", "VAULT_CLIENT_CERT", true)
		fill(&v.ClientKey, "vault.client_key", "VAULT_CLIENT_KEY", true)
	}
}
