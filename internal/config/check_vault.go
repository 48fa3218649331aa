package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"net/url"
)

// speaksOfVault reports whether the file has anything to say about the connection.
func (r *reading) speaksOfVault() bool {
	for key := range r.at {
		if strings.HasPrefix(key, "vault.") {
			return true
		}
	}
	return false
}

func (r *reading) checkVault(c *Config) {
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
			c.Warnings = append(c.Warnings,
				"vault.address: http sends the login and the secret in clear over the network; use https")
		}
	}
	if (v.ClientCert == "") != (v.ClientKey == "") {
		given, missing := "vault.client_cert", "vault.client_key"
		if v.ClientCert == "" {
			given, missing = missing, given
		}
		r.refuseAt(r.where(given), missing, "is required, as client_cert and client_key go together")
	}
	r.headerValue("vault.namespace", v.Namespace)
	if v.Auth.Namespace != v.Namespace {
		r.headerValue("vault.auth.namespace", v.Auth.Namespace)
	}
	for n, i := range c.Instances {
		if i.KVVersion == 2 && (strings.HasPrefix(i.Path, "data/") || strings.HasSuffix(i.Mount, "/data")) {
			c.Warnings = append(c.Warnings, "instances["+strconv.Itoa(n)+
				`].path: the "data/" of Vault's API is added by itself; leave it out unless the secret's own path has it`)
		}
	}
}

func (r *reading) checkAuth(c *Config) {
	v, a := &c.Vault, &c.Vault.Auth
	switch a.Method {
	case methodAppRole:
		r.checkAppRole(c)
	case methodTokenFile:
		if a.TokenFile == "" {
			r.refuse("vault.auth.token_file", "is required by method token_file")
		}
	case methodCert:
		if v.ClientCert == "" && v.ClientKey == "" {
			r.refuse("vault.client_cert", "is required by method cert, with client_key")
		}
		if strings.HasPrefix(v.Address, "http://") {
			r.refuse("vault.address", "must be an https URL for method cert, which shows its certificate in the TLS handshake")
		}
	case methodKubernetes, methodJWT:
		if a.Role == "" {
			r.refuse("vault.auth.role", "is required by method %s", a.Method)
		}
		if a.JWTFile == "" && !r.refused["vault.auth.jwt_file"] {
			r.refuse("vault.auth.jwt_file", "is required by method %s", a.Method)
		}
	default:
		r.refuse("vault.auth.method", "must be one of approle, token_file, cert, kubernetes, jwt")
		return
	}
	r.checkAuthForeign(a)
	r.vaultPath("vault.auth.mount", a.Mount)
}

func (r *reading) checkAppRole(c *Config) {
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
	if a.SecretIDWarn < 0 {
		r.refuse("vault.auth.secret_id_warn", "must be 0s, for never, or longer, such as 168h")
	}
}

// checkAuthForeign refuses what belongs to another method: it would be ignored, which its author cannot have meant.
func (r *reading) checkAuthForeign(a *Auth) {
	for _, k := range []struct {
		key     string
		set     bool
		methods []string
	}{
		{"role_id", a.RoleID.Reveal() != "", []string{methodAppRole}},
		{"role_id_file", a.RoleIDFile != "", []string{methodAppRole}},
		{"secret_id_file", a.SecretIDFile != "", []string{methodAppRole}},
		{"secret_id_wrapped", a.SecretIDWrapped, []string{methodAppRole}},
		{"secret_id_warn", a.SecretIDWarn != 0, []string{methodAppRole}},
		{"token_file", a.TokenFile != "", []string{methodTokenFile}},
		{"role", a.Role != "", []string{methodCert, methodKubernetes, methodJWT}},
		{"jwt_file", a.JWTFile != "", []string{methodKubernetes, methodJWT}},
	} {
		if k.set && !slices.Contains(k.methods, a.Method) {
			r.refuse("vault.auth."+k.key, "belongs to method %s; the method here is %s", orList(k.methods), a.Method)
		}
	}
}

// orList writes names as a sentence does: "a", "a or b", "a, b or c".
func orList(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
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

// vaultPath refuses what the HTTP client would change or cut, so that the path asked for is the path written.
func (r *reading) vaultPath(key, path string) {
	const shape = "such as campaign/prod/oauth"
	switch {
	case path == "":
		r.refuse(key, "must not be empty; leave the key out for the default")
	case strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/"):
		r.refuse(key, `must not begin or end with "/", %s`, shape)
	case strings.ContainsAny(path, "?#%"):
		r.refuse(key, `must not hold "?", "#" or "%%", %s`, shape)
	case strings.TrimSpace(path) != path:
		r.refuse(key, "must not begin or end with a space")
	default:
		for part := range strings.SplitSeq(path, "/") {
			if part == "" || part == "." || part == ".." {
				r.refuse(key, `must not hold "//", "." or ".." as a part, %s`, shape)
			}
		}
	}
}

func (r *reading) headerValue(key, value string) {
	if strings.ContainsAny(value, " ?#%") || strings.HasPrefix(value, "/") {
		r.refuse(key, `must be a namespace's path, such as admin/campaign, without space or "/" in front`)
	}
}
