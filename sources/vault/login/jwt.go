package login

import (
	"context"
	"fmt"

	"campaign-credsync/internal/credential"
)

// jwt logs in with a signed token from a file: that of a Kubernetes service account, or any other (a workload identity,
// a CI system). Vault counts no refused ones, so that one is simply tried again, and another in the file at once.
func (m *Method) jwt() {
	auth := m.auth
	m.files = []string{auth.JWTFile}
	m.prepare = func(context.Context, asked) (*attempt, error) {
		token, err := readLine(auth.JWTFile, "vault.auth.jwt_file")
		return &attempt{
			request: map[string]string{"role": auth.Role, "jwt": token},
			secret:  credential.NewSecret(token),
			remedy: fmt.Sprintf("see that the token in %s has not expired, and that role %s at auth/%s takes its issuer, audience and "+
				"subject; another in the file is tried at once", auth.JWTFile, credential.Escape(auth.Role), auth.Mount),
		}, err
	}
}
