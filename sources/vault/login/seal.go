package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
)

const (
	// sealName is bound into what systemd-creds seals: nobody can pass it off as another credential.
	sealName = "campaign-credsync-secret-id"
	// sealTime bounds one run of systemd-creds: it may ask a TPM, or a service of systemd's.
	sealTime = 5 * time.Second
	keySize  = 32 // AES-256
)

// sealedKey is a fresh key of keySize bytes and its form that only this machine can open.
type sealedKey struct {
	key    []byte
	sealed string // empty: nothing here can seal
	user   bool   // sealed for this user, and not for the system
}

// newSealedKey makes a key, has systemd-creds seal it, and has it opened again before it is relied on. Root seals with the
// system's key; others need the scope of a user, which systemd has from version 256 on. Its error says why nothing here can
// seal, or that ctx is done; the key is none then.
func newSealedKey(ctx context.Context) (sealedKey, error) {
	k := sealedKey{key: make([]byte, keySize), user: os.Geteuid() != 0}
	rand.Read(k.key)
	sealed, err := systemdCreds(ctx, "encrypt", k.user, k.key)
	if err != nil {
		return sealedKey{}, err
	}
	k.sealed = string(sealed)
	opened, err := k.open(ctx)
	if err != nil {
		return sealedKey{}, fmt.Errorf("what it sealed cannot be opened: %w", err)
	}
	if subtle.ConstantTimeCompare(opened, k.key) != 1 {
		return sealedKey{}, errors.New("what it sealed opens as something else")
	}
	return k, nil
}

func (k sealedKey) open(ctx context.Context) ([]byte, error) {
	return systemdCreds(ctx, "decrypt", k.user, []byte(k.sealed))
}

// systemdCreds has one thing sealed or opened, and ends with ctx: one that hangs must not hold up a stop. The thing goes
// through pipes: arguments are for everybody to see.
func systemdCreds(ctx context.Context, verb string, user bool, input []byte) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, sealTime)
	defer cancel()
	arguments := []string{verb, "--name=" + sealName, "--newline=no", "-", "-"}
	if user {
		arguments = append([]string{"--user"}, arguments...)
	}
	command := exec.CommandContext(bounded, "systemd-creds", arguments...)
	command.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = time.Second
	if err := command.Run(); err != nil {
		if said := credential.Clean(stderr.String()); said != "" {
			return nil, fmt.Errorf("systemd-creds %s: %w (it says: %s)", verb, err, said)
		}
		return nil, fmt.Errorf("systemd-creds %s: %w", verb, err)
	}
	return stdout.Bytes(), nil
}
