package login

import (
	"errors"
	"net/http"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

// reasonOf tells what the error of a login means for an instance.
func (m *Method) reasonOf(err error) credential.Reason {
	answer := connection.Answer(err)
	_, isAnswer := errors.AsType[*connection.Failure](err)
	switch {
	case answer.Status == http.StatusForbidden && m.auth.SecretIDFile != "": // a wrong secret-id is a 400
		return credential.ReasonLoginLocked
	case answer.Status == http.StatusForbidden, answer.Status == http.StatusBadRequest, answer.Status == http.StatusNotFound:
		return credential.ReasonLoginRefused
	case !isAnswer && credential.IsForOperator(err): // nothing was asked: what the login needs is not there, or was refused before
		return credential.ReasonLoginRefused
	}
	return connection.Reason(err)
}
