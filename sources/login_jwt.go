package sources

import (
	"context"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/kubernetes"

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
	method, err := j.method(token)
	if err != nil {
		return nil, err
	}
	remedy := fmt.Sprintf("see that the token in %s has not expired, and that role %s at auth/%s takes its issuer, audience and "+
		"subject; another in the file is tried at once", j.auth.JWTFile, credential.Escape(j.auth.Role), j.auth.Mount)
	return &attempt{
		step:     "login at auth/" + j.auth.Mount,
		mount:    j.auth.Mount,
		method:   method,
		identity: []string{j.address, j.auth.Namespace, j.auth.Mount, j.auth.Role, token},
		secret:   credential.NewSecret(token),
		remedies: map[int]string{http.StatusBadRequest: remedy, http.StatusForbidden: remedy},
	}, nil
}

func (j *jwtLogin) method(token string) (api.AuthMethod, error) {
	if j.auth.Method == methodKubernetes {
		// Without a token of ours the module would read the service account's own file.
		return kubernetes.NewKubernetesAuth(j.auth.Role, kubernetes.WithServiceAccountToken(token),
			kubernetes.WithMountPath(j.auth.Mount))
	}
	return written{j.auth.Mount, map[string]any{"role": j.auth.Role, "jwt": token}}, nil
}

// written is a login for which HashiCorp publishes no module: one request, as documented in the API of its method.
type written struct {
	mount string
	body  map[string]any
}

// Login serves api.AuthMethod.
func (w written) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	return client.Logical().WriteWithContext(ctx, "auth/"+w.mount+"/login", w.body)
}
