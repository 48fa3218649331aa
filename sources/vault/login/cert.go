package login

import (
	"context"
	"fmt"

	"campaign-credsync/internal/credential"
)

// newCert logs in by the client's certificate of the connection itself. So each login gives up the one that was kept, which shows
// the certificate of its beginning.
func newCert(config Config) (Method, error) {
	_, files := config.Connection.ClientCertificate()
	if files == nil {
		return nil, fmt.Errorf("vault.client_cert: required for method %s", config.Auth.Method)
	}
	auth := config.Auth
	request, named := map[string]string{}, ""
	if auth.Role != "" {
		request["name"] = auth.Role
		named = fmt.Sprintf(" (vault.auth.role names %s)", credential.Escape(auth.Role))
	}
	remedy := fmt.Sprintf("see that the certificate in %s has not expired, that a role at auth/%s trusts who signed it%s, and that "+
		"nothing before Vault ends the TLS connection; a new one in the file is shown at once", files[0], auth.Mount, named)
	m := newMethod(config)
	m.files = files
	m.prepare = func(context.Context, asked) (*attempt, error) {
		config.Connection.CloseIdle()
		return &attempt{request: request, remedy: remedy}, nil
	}
	return m, nil
}
