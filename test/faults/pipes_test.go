package faults_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// pipe puts a FIFO in the place of a file, which would hold whoever opens it, until back is called.
func pipe(w *world.World, file string) (back func()) {
	w.T.Helper()
	w.Must(os.Rename(file, file+".aside"))
	w.Must(unix.Mkfifo(file, 0o600))
	return func() { w.T.Helper(); w.Must(os.Rename(file+".aside", file)) }
}

// A FIFO in the place of each file that a login reads: it is said what is wrong, drift is reverted, and all goes on when the file is
// back. A stop does not wait for it either.
func TestPipeInPlaceOfALoginFile(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second // so that a login is always due
	for key, configure := range map[string]func(w *world.World) (login, file string){
		"secret_id_file": func(w *world.World) (string, string) { return w.AppRole(), w.SecretID },
		"role_id_file": func(w *world.World) (string, string) {
			file := w.Path("role_id")
			w.Must(os.WriteFile(file, []byte(w.RoleID), 0o600))
			return strings.Replace(w.AppRole(), "role_id: "+w.RoleID, "role_id_file: "+file, 1), file
		},
		"token_file": func(w *world.World) (string, string) {
			token := w.Vault.MustToken(w.Vault.ReadPolicy(w.SecretPath("prod")), time.Hour)
			w.Secrets = append(w.Secrets, token)
			w.Must(os.WriteFile(w.SecretID, []byte(token), 0o600))
			return "method: token_file, token_file: " + w.SecretID, w.SecretID
		},
		"jwt_file": func(w *world.World) (string, string) {
			signer := vaulttest.MustSigner(w.T)
			mount, role := w.Vault.MustJWTRole(w.Vault.ReadPolicy(w.SecretPath("prod")), ttl, signer, "campaign")
			w.Must(os.WriteFile(w.SecretID, []byte(signer.Sign(map[string]any{"sub": "campaign", "aud": "vault"})), 0o600))
			return fmt.Sprintf("method: jwt, mount: %s, role: %s, jwt_file: %s", mount, role, w.SecretID), w.SecretID
		},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{TokenTTL: ttl})
			login, file := configure(w)
			w.Reconfigured(func(o *container.Options) { o.Login = login })
			version, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(version)
			back := pipe(w, file)
			w.Is("prod", "degraded/login_refused", "vault.auth."+key, "is not a regular file; put one there")
			keepsAndGuards(w, secret)
			back()
			version, secret = w.NewSecret("prod")
			w.InSync(version)
			w.Holds("prod", secret)
			back = pipe(w, file)
			w.Is("prod", "degraded", "vault.auth."+key, "is not a regular file")
			w.Stop()
			back()
		})
	}
}

// The same of what a reload reads: it is refused, and the old configuration goes on.
func TestPipeInPlaceOfACertificate(t *testing.T) {
	t.Parallel()
	authority := vaulttest.MustAuthority(t)
	_, cert, key := authority.MustIssue(t, "campaign")
	w := world.New(t, container.Options{})
	config, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, []byte(strings.Replace(string(config), "vault:\n", fmt.Sprintf(
		"vault:\n  ca_cert: %s\n  client_cert: %s\n  client_key: %s\n", authority.File, cert, key), 1)), 0o600))
	version, _ := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(version)
	for name, file := range map[string]string{"ca_cert": authority.File, "client_cert": cert, "client_key": key} {
		back := pipe(w, file)
		w.Signal(syscall.SIGHUP)
		w.Eventually("the reload is refused", func() bool {
			return strings.Contains(w.Log(), "configuration not reloaded") && strings.Contains(w.Log(), "vault."+name+": open "+file+": is not a regular file")
		})
		version, secret := w.NewSecret("prod")
		w.InSync(version)
		w.Holds("prod", secret)
		back()
		w.HangUp()
	}
}
