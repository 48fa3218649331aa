package login

import (
	"context"
	"fmt"
)

// cert logs in by the client's certificate of the connection itself. So each login gives up the one that was kept, which shows
// the certificate of its beginning.
func (m *Method) cert() error {
	if m.files = m.connection.ClientCertificate(); m.files == nil {
		return fmt.Errorf("vault.client_cert: required for method %s", m.auth.Method)
	}
	a := attempt{
		request: map[string]string{},
		remedy: fmt.Sprintf("see that the certificate in %s has not expired, that a role at auth/%s (vault.auth.role, if set) trusts who "+
			"signed it, and that nothing before Vault ends the TLS connection; a new one in the file is shown at once", m.files[0], m.auth.Mount),
	}
	if m.auth.Role != "" {
		a.request["name"] = m.auth.Role
	}
	m.prepare = func(context.Context, asked) (*attempt, error) {
		m.connection.CloseIdle()
		return &a, nil
	}
	return nil
}
