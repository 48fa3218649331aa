package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// needsVault reports whether any instance gets its credential from Vault.
func (c *Config) needsVault() bool {
	return len(c.Instances) == 0 || slices.ContainsFunc(c.Instances, func(i Instance) bool { return i.Source != SourceFile })
}

func (r *reader) checkVault(c *Config) {
	if !c.needsVault() {
		c.Warnings = append(c.Warnings, "vault: is not used, as every instance has source: file")
	}
	v := &c.Vault
	if v.Address == "" {
		r.refuse("vault.address", "is required, such as https://vault.example.com:8200 (or set VAULT_ADDR)")
	} else if u, problem := hostURL(v.Address); problem != "" {
		r.refuse("vault.address", "%s, such as https://vault.example.com:8200", problem)
	} else {
		v.Address = u.String()
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			c.Warnings = append(c.Warnings, "vault.address: http sends the login and the secret in clear over the network; use https")
		}
	}
	given, missing := "vault.client_cert", "vault.client_key"
	if v.ClientCert == "" {
		given, missing = missing, given
	}
	if (v.ClientCert == "") != (v.ClientKey == "") {
		r.refuseAt(r.where(given), missing, "is required, as client_cert and client_key go together")
	}
	r.checkNamespace("vault.namespace", v.Namespace)
	if v.Auth.Namespace != v.Namespace {
		r.checkNamespace("vault.auth.namespace", v.Auth.Namespace)
	}
	for n, i := range c.Instances {
		if i.KVVersion == 2 && (strings.HasPrefix(i.Path, "data/") || strings.HasSuffix(i.Mount, "/data")) {
			c.Warnings = append(c.Warnings, fmt.Sprintf(
				`instances[%d].path: the "data/" of Vault's API is added by itself; leave it out unless the secret's own path has it`, n))
		}
	}
}

func (r *reader) checkAuth(c *Config) {
	v, a := &c.Vault, &c.Vault.Auth
	switch a.Method {
	case "approle":
		r.checkAppRole(c)
	case "token_file":
		r.refuseIf(a.TokenFile == "", "vault.auth.token_file", "is required by method token_file")
	case "cert":
		r.refuseIf(v.ClientCert == "" && v.ClientKey == "", "vault.client_cert", "is required by method cert, with client_key")
		r.refuseIf(strings.HasPrefix(v.Address, "http://"), "vault.address",
			"must be an https URL for method cert, which shows its certificate in the TLS handshake")
	case "kubernetes", "jwt":
		r.refuseIf(a.Role == "", "vault.auth.role", "is required by method %s", a.Method)
		r.refuseIf(a.JWTFile == "", "vault.auth.jwt_file", "is required by method %s", a.Method)
	}
	r.checkForeign("vault.auth", reflect.ValueOf(*a), "method", a.Method)
	r.checkVaultPath("vault.auth.mount", a.Mount)
}

func (r *reader) checkAppRole(c *Config) {
	a := &c.Vault.Auth
	hasID, hasFile := a.RoleID.Reveal() != "", a.RoleIDFile != ""
	switch {
	case hasID && hasFile:
		r.refuse("vault.auth.role_id_file", "stands beside role_id; keep one of the two")
	case !hasID && !hasFile && !r.refused["vault.auth.role_id_file"]:
		r.refuse("vault.auth.role_id", "is required by method approle, or role_id_file")
	}
	switch {
	case a.SecretIDFile != "":
	case a.SecretIDWrapped:
		r.refuse("vault.auth.secret_id_file", "is required by secret_id_wrapped, such as ${CREDENTIALS_DIRECTORY}/secret_id")
	default:
		c.Warnings = append(c.Warnings, "vault.auth.secret_id_file: is not set, so the login works only for a role with bind_secret_id=false")
	}
	r.refuseIf(a.SecretIDWarn < 0, "vault.auth.secret_id_warn", "must be 0s, for never, or longer, such as 168h")
}

// hostURL takes an address that is scheme, host and port only. problem is empty, or says what is wrong, without the address, which
// may hold a password.
func hostURL(address string) (u *url.URL, problem string) {
	const shape = "must be an http or https URL of a host"
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, shape
	case u.User != nil:
		return nil, "must not hold a user or a password"
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "", strings.ContainsAny(address, "# "):
		return nil, shape + " with nothing behind it"
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, "has a port that is not from 1 to 65535"
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, ""
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host) // which knows zones
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// checkVaultPath refuses what the HTTP client would change or cut, so that the path asked for is the path written.
func (r *reader) checkVaultPath(key, text string) {
	const shape = "such as campaign/prod/oauth"
	switch {
	case text == "":
		r.refuse(key, "must not be empty; leave the key out for the default")
	case strings.Trim(text, "/") != text:
		r.refuse(key, `must not begin or end with "/", %s`, shape)
	case strings.ContainsAny(text, "?#%"):
		r.refuse(key, `must not hold "?", "#" or "%%", %s`, shape)
	case strings.TrimSpace(text) != text:
		r.refuse(key, "must not begin or end with a space")
	case path.Clean("/"+text) != "/"+text:
		r.refuse(key, `must not hold "//", "." or ".." as a part, %s`, shape)
	}
}

func (r *reader) checkNamespace(key, value string) {
	r.refuseIf(strings.ContainsAny(value, " ?#%") || strings.HasPrefix(value, "/"), key,
		`must be a namespace's path, such as admin/campaign, without space or "/" in front`)
}
