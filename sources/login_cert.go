package sources

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"campaign-credsync/internal/credential"
)

// certLogin logs in by the client's certificate of the connection itself. That is why each login makes its own.
type certLogin struct {
	address string
	auth    Auth
	pair    *clientPair
}

func newCertLogin(address string, auth Auth, pair *clientPair) (*certLogin, error) {
	switch {
	case pair == nil:
		return nil, fmt.Errorf("vault.client_cert, vault.client_key: required for method %s", methodCert)
	case !strings.HasPrefix(address, "https://"):
		return nil, fmt.Errorf("vault.address: method %s needs https://, as the certificate is shown in the TLS handshake", methodCert)
	}
	return &certLogin{address: address, auth: auth, pair: pair}, nil
}

func (c *certLogin) prepare(context.Context) (*attempt, error) {
	request := loginRequest{}
	if c.auth.Role != "" {
		request["name"] = c.auth.Role
	}
	remedy := fmt.Sprintf("see that the certificate in %s has not expired, that a role at auth/%s trusts who signed it%s, and that "+
		"nothing before Vault ends the TLS connection; a new one in the file is shown at once",
		c.pair.certFile, c.auth.Mount, c.named())
	return &attempt{
		step:     "login at auth/" + c.auth.Mount,
		mount:    c.auth.Mount,
		request:  request,
		identity: []string{c.address, c.auth.Namespace, c.auth.Mount, c.auth.Role, string(c.pair.current().Certificate[0])},
		remedies: map[int]string{http.StatusBadRequest: remedy, http.StatusForbidden: remedy},
	}, nil
}

func (c *certLogin) named() string {
	if c.auth.Role == "" {
		return ""
	}
	return fmt.Sprintf(" (vault.auth.role names %s)", credential.Escape(c.auth.Role))
}
