package sources

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"campaign-credsync/internal/credential"
)

type appRole struct {
	address  string
	auth     Auth
	wrapping *wrapping // nil: the file holds the secret-id itself
}

// newAppRole checks its settings. wrapping may be nil.
func newAppRole(address string, auth Auth, wrapping *wrapping) (*appRole, error) {
	switch {
	case (auth.RoleID == "") == (auth.RoleIDFile == ""):
		return nil, errors.New("vault.auth.role_id, vault.auth.role_id_file: set exactly one of them")
	case wrapping != nil && auth.SecretIDFile == "":
		return nil, errors.New("vault.auth.secret_id_wrapped: needs vault.auth.secret_id_file")
	case wrapping != nil && wrapping.kept.dir == "":
		return nil, errors.New("vault.auth.secret_id_wrapped: needs a state directory, to keep what was unwrapped")
	}
	return &appRole{address: address, auth: auth, wrapping: wrapping}, nil
}

func (a *appRole) prepare(ctx context.Context) (*attempt, error) {
	roleID := a.auth.RoleID
	if a.auth.RoleIDFile != "" {
		var err error
		if roleID, err = readLine(a.auth.RoleIDFile, "vault.auth.role_id_file"); err != nil {
			return nil, forPerson{fmt.Errorf("vault login: %w", err)}
		}
	}
	if a.auth.SecretIDFile == "" {
		return a.withoutSecretID(roleID), nil
	}
	if a.wrapping != nil {
		secretID, from, err := a.wrapping.secretID(ctx)
		if err != nil {
			return nil, err
		}
		attempt, err := a.attempt(roleID, secretID.Reveal(), "unwrapped from "+a.auth.SecretIDFile, "wrapped secret-id")
		if err == nil {
			attempt.accepted = func() { a.wrapping.accepted(from) }
			attempt.rejected = func(refusal error) bool { return a.wrapping.rejected(ctx, from, refusal) }
		}
		return attempt, err
	}
	secretID, err := readLine(a.auth.SecretIDFile, "vault.auth.secret_id_file")
	if err == nil && vaultToken.MatchString(secretID) {
		err = fmt.Errorf("vault.auth.secret_id_file: %s holds a token of Vault and no secret-id; write a secret-id there, or set "+
			"vault.auth.secret_id_wrapped to true if it is a wrapping token", a.auth.SecretIDFile)
	}
	if err != nil {
		return nil, forPerson{fmt.Errorf("vault login: %w", err)}
	}
	return a.attempt(roleID, secretID, "in "+a.auth.SecretIDFile, "secret-id")
}

// vaultToken is how a token begins: of Vault 1.10 and later, or of OpenBao and earlier ones.
var vaultToken = regexp.MustCompile(`^(?:hv[sbr]\.|[sbr]\.[A-Za-z0-9]{24})`)

// withoutSecretID is a login to a role with bind_secret_id=false. Vault counts none that it refuses.
func (a *appRole) withoutSecretID(roleID string) *attempt {
	return &attempt{
		step:     "login at auth/" + a.auth.Mount,
		mount:    a.auth.Mount,
		request:  loginRequest{"role_id": roleID},
		identity: []string{a.address, a.auth.Namespace, a.auth.Mount, roleID},
		remedies: map[int]string{
			http.StatusBadRequest: "see that the role id is right and that the role lets this host log in; if it binds a secret-id " +
				"(bind_secret_id), set vault.auth.secret_id_file",
			http.StatusForbidden: "this host may not log in there",
		},
	}
}

// attempt makes the attempt. origin says where the secret-id came from, what what is to be put there.
func (a *appRole) attempt(roleID, secretID, origin, what string) (*attempt, error) {
	return &attempt{
		step:     "login at auth/" + a.auth.Mount,
		mount:    a.auth.Mount,
		request:  loginRequest{"role_id": roleID, "secret_id": secretID},
		identity: []string{a.address, a.auth.Namespace, a.auth.Mount, roleID, secretID},
		secret:   credential.NewSecret(secretID),
		remedies: map[int]string{
			http.StatusForbidden: "the role is locked after refused logins (15 minutes, for every host that uses it), or this host " +
				"may not log in there",
		},
		refusal: fmt.Sprintf("vault at %s: the secret-id %s was refused at auth/%s and is not tried again, as five refused logins "+
			"lock the role for every host: put a new %s there, or correct the role id and send SIGHUP",
			a.address, origin, a.auth.Mount, what),
		enough: fmt.Sprintf("vault at %s: login at auth/%s: the last tries in a row were refused, or cut off before their answer; five "+
			"refused ones lock the role for every host, so not even SIGHUP or SIGUSR1 tries again for now: see that %s holds the "+
			"right %s", a.address, a.auth.Mount, a.auth.SecretIDFile, what),
	}, nil
}
