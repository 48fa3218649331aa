package config

import (
	"fmt"
	"path/filepath"
	"strings"
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
		if i.Source == "vault" && !r.given(key+".mount") {
			i.Mount = "secret"
		}
		if i.Source == "vault" && !r.given(key+".kv_version") {
			i.KVVersion = 2
		}
		if i.ConfigFile == "" {
			i.ConfigFile = filepath.Join(c.Campaign.Home, "conf", "config-"+i.Name+".xml")
		}
	}
	if !c.needsVault() && !r.given("vault") {
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
	if a.Method != "approle" && !r.given("vault.auth.secret_id_warn") {
		a.SecretIDWarn = 0
	}
	if a.JWTFile == "" && a.Method == "kubernetes" { // where Kubernetes puts a pod's service account token
		a.JWTFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	}
}

// fillFromEnvironment takes what the file does not say about the connection from Vault's own variables. An empty value in
// the file says nothing. The client's certificate and key are one thing: they never come half from here, half from there.
func (r *reader) fillFromEnvironment(v *Vault) {
	noPair := v.ClientCert == "" && v.ClientKey == "" && !r.refused["vault.client_cert"] && !r.refused["vault.client_key"]
	for _, f := range []struct {
		into          *string
		key, variable string
		isPath, wants bool
	}{
		{&v.Address, "vault.address", "VAULT_ADDR", false, true},
		{&v.Namespace, "vault.namespace", "VAULT_NAMESPACE", false, true},
		{&v.CACert, "vault.ca_cert", "VAULT_CACERT", true, true},
		{&v.ClientCert, "vault.client_cert", "VAULT_CLIENT_CERT", true, noPair},
		{&v.ClientKey, "vault.client_key", "VAULT_CLIENT_KEY", true, noPair},
		{&v.TLSServerName, "vault.tls_server_name", "VAULT_TLS_SERVER_NAME", false, true},
	} {
		value, set := r.env(f.variable)
		if !set || *f.into != "" || value == "" || r.refused[f.key] || !f.wants {
			continue
		}
		if strings.ContainsFunc(value, unprintable) {
			r.refuse(f.key, "comes from %s, which holds a line end or a control character", f.variable)
			continue
		}
		*f.into = value
		r.from[f.key] = f.variable
		if f.isPath && value[0] != '/' {
			r.refuse(f.key, mustBeAbsolute)
		}
	}
}

// expand replaces each ${NAME} in path. Everything else stays, a lone "$" too.
func expand(path string, env func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(path, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !variableName.MatchString(name) {
			return "", fmt.Errorf(`has a "${" that is not followed by a variable's name and "}"`)
		}
		value, ok := env(name)
		switch {
		case !ok && name == "CREDENTIALS_DIRECTORY":
			return "", fmt.Errorf("${%s} is not set in the environment; systemd sets it for the unit, by hand put "+
				"%[1]s=/run/credentials/campaign-credsync.service before the command", name)
		case !ok:
			return "", fmt.Errorf("${%s} is not set in the environment; set it or write the path out", name)
		case value == "":
			// "${DIR}/secret_id" would silently mean a file in the root directory.
			return "", fmt.Errorf("${%s} is empty in the environment; set it or write the path out", name)
		}
		b.WriteString(value)
		path = after
	}
}
