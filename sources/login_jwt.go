package sources

import (
	"context"
	"fmt"
	"net/http"

	"campaign-credsync/internal/credential"
)

// jwtLogin logs in with a signed token from a file: that of a Kubernetes service account, or any other (a workload
// identity, a CI system). Vault counts no refused ones, so that one is simply tried again, and another in the file at once.
type jwtLogin struct {
	address string
	auth    Auth
}

func newJWTLogin(address string, auth Auth) (*jwtLogin, error) {
	switch {
	case auth.Role == "":
		return nil, fmt.Errorf("vault.auth.role: required for method %s", auth.Method)
	case auth.JWTFile == "":
		return nil, fmt.Errorf("vault.auth.jwt_file: required for method %s", auth.Method)
	}
	return &jwtLogin{address: address, auth: auth}, nil
}

func (j *jwtLogin) prepare(context.Context) (*attempt, error) {
	token, err := readLine(j.auth.JWTFile, "vault.auth.jwt_file")
	if err != nil {
		return nil, forPerson{fmt.Errorf("vault login: %w", err)}
	}
	remedy := fmt.Sprintf("see that the token in %s has not expired, and that role %s at auth/%s takes its issuer, audience and "+
		"subject; another in the file is tried at once", j.auth.JWTFile, credential.Escape(j.auth.Role), j.auth.Mount)
	return &attempt{
		step:     "login at auth/" + j.auth.Mount,
		mount:    j.auth.Mount,
		request:  loginRequest{"role": j.auth.Role, "jwt": token},
		identity: []string{j.address, j.auth.Namespace, j.auth.Mount, j.auth.Role, token},
		secret:   credential.NewSecret(token),
		remedies: map[int]string{http.StatusBadRequest: remedy, http.StatusForbidden: remedy},
	}, nil
}
