package login

import (
	"context"
	"fmt"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// appRole logs in with a role-id and a secret-id.
func (m *Method) appRole() {
	m.prepare = m.prepareAppRole
	if m.auth.SecretIDFile == "" {
		return
	}
	m.files = []string{m.auth.SecretIDFile}
	if m.auth.SecretIDWrapped {
		m.wrapping = &wrapping{Method: m}
	}
}

func (m *Method) prepareAppRole(ctx context.Context, asked asked) (*attempt, error) {
	roleID := m.auth.RoleID.Reveal()
	var err error
	if m.auth.RoleIDFile != "" {
		if roleID, err = readLine(m.auth.RoleIDFile, "vault.auth.role_id_file"); err != nil {
			return nil, err
		}
	}
	file := m.auth.SecretIDFile
	var secretID string
	where, what := "in", "secret-id"
	switch {
	case file == "": // a role with bind_secret_id=false
		return &attempt{
			request: map[string]string{"role_id": roleID},
			remedy: "see that the role id is right and that the role lets this host log in; if it binds a secret-id (bind_secret_id), " +
				"set vault.auth.secret_id_file",
		}, nil
	case m.wrapping != nil:
		where, what = "unwrapped from", "wrapped secret-id"
		secretID, err = m.wrapping.secretID(ctx, asked)
	default:
		secretID, err = readLine(file, "vault.auth.secret_id_file")
		if vaultToken().MatchString(secretID) {
			err = credential.NeedsOperator(fmt.Errorf("vault login: vault.auth.secret_id_file: %s holds a token of Vault and no secret-id; "+
				"write a secret-id there, or set vault.auth.secret_id_wrapped to true if it is a wrapping token", file))
		}
	}
	return &attempt{
		request: map[string]string{"role_id": roleID, "secret_id": secretID},
		secret:  credential.NewSecret(secretID),
		remedy: "the role is locked after refused logins (15 minutes, for every host that uses it), or this host may not log in " +
			"there",
		refused: fmt.Sprintf("vault at %s: the secret-id %s %s was refused at auth/%s and is not tried again, as five refused logins "+
			"lock the role for every host: put a new %s there, or correct the role id and send SIGHUP",
			m.connection.Address(), where, file, m.auth.Mount, what),
		tooOften: fmt.Sprintf("vault at %s: %s: the last tries in a row were refused, or cut off before their answer; five refused ones "+
			"lock the role for every host, so not even SIGHUP or SIGUSR1 tries again for now: see that %s holds the right %s",
			m.connection.Address(), m.step(), file, what),
	}, err
}

// vaultToken is how a token begins: of Vault 1.10 and later, or of OpenBao and earlier ones.
var vaultToken = lazyregexp.New(`^(?:hv[sbr]\.|[sbr]\.[A-Za-z0-9]{24})`)
