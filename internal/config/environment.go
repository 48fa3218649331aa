package config

import (
	"fmt"
	"strings"
)

// fillFromEnvironment takes what the file does not say about the connection from Vault's own variables. An empty value in
// the file says nothing. The client's certificate and key are one thing: they never come half from here, half from there.
func (r *reading) fillFromEnvironment(c *Config) {
	v := &c.Vault
	r.fill(&v.Address, "vault.address", "VAULT_ADDR")
	r.fill(&v.Namespace, "vault.namespace", "VAULT_NAMESPACE")
	r.fillPath(&v.CACert, "vault.ca_cert", "VAULT_CACERT")
	if v.ClientCert == "" && v.ClientKey == "" && !r.refused["vault.client_cert"] && !r.refused["vault.client_key"] {
		r.fillPath(&v.ClientCert, "vault.client_cert", "VAULT_CLIENT_CERT")
		r.fillPath(&v.ClientKey, "vault.client_key", "VAULT_CLIENT_KEY")
	}
	r.fill(&v.TLSServerName, "vault.tls_server_name", "VAULT_TLS_SERVER_NAME")
}

func (r *reading) fill(into *string, key, variable string) {
	value, ok := r.env(variable)
	if *into != "" || !ok || value == "" || r.refused[key] {
		return
	}
	if strings.ContainsFunc(value, unprintable) {
		r.refuse(key, "comes from %s, which holds a line end or a control character", variable)
		return
	}
	*into = value
	r.from[key] = variable
}

func (r *reading) fillPath(into *string, key, variable string) {
	r.fill(into, key, variable)
	if r.from[key] != "" && !strings.HasPrefix(*into, "/") {
		r.refuse(key, `must be an absolute path, one that begins with "/"`)
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
		if !closed || !isVariableName(name) {
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

func isVariableName(name string) bool {
	for i, c := range name {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
