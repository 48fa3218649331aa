package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/goccy/go-yaml"
)

// setDefaults gives the fields of a struct the defaults in their tags, which validate.txtar shows to be good YAML.
func setDefaults(group reflect.Value) {
	for field, value := range group.Fields() {
		if text, ok := field.Tag.Lookup("default"); ok {
			yaml.Unmarshal([]byte(text), value.Addr().Interface())
		} else if value.Kind() == reflect.Struct {
			setDefaults(value)
		}
	}
}

// complete adds the defaults that depend on other keys, and what Vault's own variables say.
func (r *reader) complete(c *Config) {
	for n := range c.Instances {
		i := &c.Instances[n]
		if i.Source != SourceFile {
			i.Mount = cmp.Or(i.Mount, "secret")
			if r.at[fmt.Sprintf("instances[%d].kv_version", n)] == nil {
				i.KVVersion = 2
			}
		}
		if i.ConfigFile == "" {
			i.ConfigFile = filepath.Join(c.Campaign.Home, "conf", "config-"+i.Name+".xml")
		}
	}
	if !c.needsVault() {
		c.Vault = Vault{}
		return
	}
	r.fillFromEnvironment(&c.Vault)
	a := &c.Vault.Auth
	a.Mount = cmp.Or(a.Mount, a.Method)
	a.Namespace = cmp.Or(a.Namespace, c.Vault.Namespace)
	if a.JWTFile == "" && a.Method == MethodKubernetes { // where Kubernetes puts a pod's service account token
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
