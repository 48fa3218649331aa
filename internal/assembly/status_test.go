package assembly

import (
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/config"
)

// TestWarningNamesAPlaceThatCanBeWritten: systemd's copy of a credential is read-only, so nobody is sent there with a new secret-id.
func TestWarningNamesAPlaceThatCanBeWritten(t *testing.T) {
	t.Parallel()
	for file, remedy := range map[string]string{
		"/etc/campaign-credsync/login/secret_id":               "/etc/campaign-credsync/login/secret_id",
		"/run/credentials/campaign-credsync.service/secret_id": "LoadCredential=",
	} {
		a := &assembly{config: &config.Config{}}
		a.config.Vault.Auth.SecretIDFile = file
		for when, end := range map[string]time.Time{"ends": time.Now().Add(time.Hour), "ended": time.Now().Add(-time.Hour)} {
			text := a.wordsOfEnd(end)
			if !strings.Contains(text, "the secret-id "+when+" ") || !strings.Contains(text, remedy) || strings.Contains(text, "/run/credentials") {
				t.Errorf("%s: %s", file, text)
			}
		}
	}
}
