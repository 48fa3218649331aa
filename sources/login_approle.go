package sources

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api/auth/approle"

	"campaign-credsync/internal/credential"
)

type appRole struct {
	address string
	auth    Auth
}

func newAppRole(address string, auth Auth) (*appRole, error) {
	auth.Mount = strings.Trim(auth.Mount, "/")
	switch {
	case (auth.RoleID == "") == (auth.RoleIDFile == ""):
		return nil, errors.New("vault.auth.role_id, vault.auth.role_id_file: set exactly one of them")
	case auth.SecretIDFile == "":
		return nil, errors.New("vault.auth.secret_id_file: required for method approle")
	}
	if err := checkPath(auth.Mount); err != nil {
		return nil, fmt.Errorf("vault.auth.mount: %w", err)
	}
	return &appRole{address: address, auth: auth}, nil
}

func (a *appRole) prepare() (*attempt, error) {
	roleID := a.auth.RoleID
	if a.auth.RoleIDFile != "" {
		var err error
		if roleID, err = readLine(a.auth.RoleIDFile, "vault.auth.role_id_file"); err != nil {
			return nil, err
		}
	}
	secretID, err := readLine(a.auth.SecretIDFile, "vault.auth.secret_id_file")
	if err != nil {
		return nil, err
	}
	method, err := approle.NewAppRoleAuth(roleID, &approle.SecretID{FromString: secretID}, approle.WithMountPath(a.auth.Mount))
	if err != nil {
		return nil, err
	}
	return &attempt{
		step:     "login at auth/" + a.auth.Mount,
		mount:    a.auth.Mount,
		method:   method,
		identity: []string{a.address, a.auth.Namespace, a.auth.Mount, roleID, secretID},
		secret:   credential.NewSecret(secretID),
		remedies: map[int]string{
			http.StatusForbidden: "the role is locked after refused logins (15 minutes, for every host that uses it), or this host " +
				"may not log in there",
		},
		refusal: fmt.Sprintf("vault at %s: the secret-id in %s was refused at auth/%s and is not tried again, as five refused logins "+
			"lock the role for every host: put a new secret-id there, or correct the role id and send SIGHUP",
			a.address, a.auth.SecretIDFile, a.auth.Mount),
		enough: fmt.Sprintf("vault at %s: login at auth/%s: the last tries in a row were refused, or cut off before their answer; five "+
			"refused ones lock the role for every host, so not even SIGHUP or SIGUSR1 tries again for now: see that %s holds the "+
			"right secret-id", a.address, a.auth.Mount, a.auth.SecretIDFile),
	}, nil
}
