package connection

import (
	"net/http"
	"strings"

	"campaign-credsync/internal/credential"
)

// Reason tells what the error of a request means for an instance. Whatever Vault itself does not explain is one that cannot be reached.
func Reason(err error) credential.Reason {
	switch answer := Answer(err); {
	case answer.Status == http.StatusServiceUnavailable && strings.Contains(strings.ToLower(answer.Said), "sealed"):
		return credential.ReasonVaultSealed
	case answer.InvalidToken():
		return credential.ReasonLoginRefused
	case answer.Status == http.StatusForbidden:
		return credential.ReasonVaultDenied
	}
	return credential.ReasonVaultUnreachable
}

// InvalidToken reports what newer Vaults say of a token that has ended; older ones say no more than of a path that is forbidden.
func (f Failure) InvalidToken() bool { return strings.Contains(f.Said, "invalid token") }
