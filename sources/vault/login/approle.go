package login

import (
	"context"
	"fmt"
	"net/http"
	"regexp"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
)

// appRole logs in with a role-id and a secret-id.
type appRole struct {
	auth     config.Auth
	address  string
	wrapping *wrapping // nil: the file holds the secret-id itself
}

func newAppRole(config Config) (Method, error) {
	auth := config.Auth
	a := &appRole{auth: auth, address: config.Connection.Address()}
	m := newMethod(config, a.prepare)
	if auth.SecretIDFile != "" {
		m.files = []string{auth.SecretIDFile}
	}
	m.refusals.lock = auth.SecretIDFile // the state directory may not be there yet
	if auth.SecretIDWrapped {
		a.wrapping = newWrapping(config, m.refusals.digest)
		m.wrapping = a.wrapping
	}
	if auth.SecretIDFile != "" && auth.SecretIDWarn > 0 && !config.State.OnlyReads {
		var err error
		if m.end, err = newSecretIDEnd(config); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (a *appRole) prepare(ctx context.Context, asked asked) (*attempt, error) {
	roleID, err := a.auth.RoleID.Reveal(), error(nil)
	if a.auth.RoleIDFile != "" {
		if roleID, err = readLine(a.auth.RoleIDFile, "vault.auth.role_id_file"); err != nil {
			return nil, err
		}
	}
	switch {
	case a.auth.SecretIDFile == "":
		return a.withoutSecretID(roleID), nil
	case a.wrapping != nil:
		secretID, err := a.wrapping.secretID(ctx, asked)
		return a.attempt(roleID, secretID.Reveal(), "unwrapped from", "wrapped secret-id"), err
	}
	secretID, err := readLine(a.auth.SecretIDFile, "vault.auth.secret_id_file")
	if err == nil && vaultToken.MatchString(secretID) {
		err = credential.NeedsOperator(fmt.Errorf("vault login: vault.auth.secret_id_file: %s holds a token of Vault and no secret-id; write "+
			"a secret-id there, or set vault.auth.secret_id_wrapped to true if it is a wrapping token", a.auth.SecretIDFile))
	}
	return a.attempt(roleID, secretID, "in", "secret-id"), err
}

// vaultToken is how a token begins: of Vault 1.10 and later, or of OpenBao and earlier ones.
var vaultToken = regexp.MustCompile(`^(?:hv[sbr]\.|[sbr]\.[A-Za-z0-9]{24})`)

// withoutSecretID is a login to a role with bind_secret_id=false. Vault counts none that it refuses.
func (a *appRole) withoutSecretID(roleID string) *attempt {
	return &attempt{
		request:  map[string]string{"role_id": roleID},
		identity: []string{roleID},
		remedies: map[int]string{
			http.StatusBadRequest: "see that the role id is right and that the role lets this host log in; if it binds a secret-id " +
				"(bind_secret_id), set vault.auth.secret_id_file",
			http.StatusForbidden: "this host may not log in there",
		},
	}
}

// attempt makes the attempt. where tells how the secret-id came from the file, what what is to be put there.
func (a *appRole) attempt(roleID, secretID, where, what string) *attempt {
	file := a.auth.SecretIDFile
	return &attempt{
		request:  map[string]string{"role_id": roleID, "secret_id": secretID},
		identity: []string{roleID, secretID},
		secret:   credential.NewSecret(secretID),
		remedies: map[int]string{
			http.StatusForbidden: "the role is locked after refused logins (15 minutes, for every host that uses it), or this host " +
				"may not log in there",
		},
		refusal: fmt.Sprintf("vault at %s: the secret-id %s %s was refused at auth/%s and is not tried again, as five refused logins "+
			"lock the role for every host: put a new %s there, or correct the role id and send SIGHUP",
			a.address, where, file, a.auth.Mount, what),
		tooOften: fmt.Sprintf("vault at %s: login at auth/%s: the last tries in a row were refused, or cut off before their answer; five "+
			"refused ones lock the role for every host, so not even SIGHUP or SIGUSR1 tries again for now: see that %s holds the "+
			"right %s", a.address, a.auth.Mount, file, what),
	}
}
