package login

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
)

const (
	// keptFile ends like no file of an instance.
	keptFile = "secret-id.key"
	// sealName is bound into what systemd-creds seals: nobody can pass it off as another credential.
	sealName = "campaign-credsync-secret-id"
	// sealTime bounds one run of systemd-creds: it may ask a TPM, or a service of systemd's.
	sealTime = 5 * time.Second
	keySize  = 32 // AES-256
)

// keptRecord keeps the secret-id that was unwrapped, as that works only once: encrypted with a key that systemd-creds has
// sealed, or, where that cannot be had, as it is, readable for this user only.
type keptRecord struct {
	Current json.RawMessage `json:"current,omitempty"` // a keptEntry, with the fields of a newer release

	unknown durable.Unknown
}

type keptEntry struct {
	From  string `json:"from"`                 // keyed digest of the wrapping token it came out of
	Key   string `json:"sealed_key,omitempty"` // by systemd-creds; empty: nothing is encrypted
	Box   []byte `json:"box,omitempty"`        // the secret-id by AES-256-GCM under that key, its nonce in front
	Plain string `json:"secret_id,omitempty"`  // the secret-id where there is no key
}

func (w *wrapping) keptFile() string { return filepath.Join(w.refusals.StateDir, keptFile) }

// kept returns what is kept, and writes what could not be written before. On an error it may be there all the same.
func (w *wrapping) kept() (record keptRecord, current keptEntry, err error) {
	record.unknown, err = readRecord(w.keptFile(), &record)
	if w.unsaved.From != "" {
		unsaved := w.unsaved
		if err == nil && w.keep(record, unsaved) == nil {
			w.unsaved = keptEntry{}
		}
		return record, unsaved, nil
	}
	if err != nil {
		return record, current, credential.NeedsOperator(fmt.Errorf("vault login: read the kept secret-id: %w; let this user read it", err))
	}
	if record.Current != nil && json.Unmarshal(record.Current, &current) != nil {
		return record, keptEntry{}, nil
	}
	return record, current, nil
}

// keep writes an entry in place of what record holds.
func (w *wrapping) keep(record keptRecord, entry keptEntry) (err error) {
	if record.Current, err = json.Marshal(entry); err != nil {
		return err
	}
	return writeRecord(w.keptFile(), record, record.unknown)
}

// open returns the secret-id of an entry.
func (e *keptEntry) open(ctx context.Context) (string, error) {
	if e.Key == "" {
		return e.Plain, nil
	}
	key, err := systemdCreds(ctx, "decrypt", []byte(e.Key))
	if err != nil {
		return "", err
	}
	if len(key) == keySize {
		if id, err := box(key).Open(nil, nil, e.Box, []byte(e.From)); err == nil {
			return string(id), nil
		}
	}
	return "", errors.New("what is kept is damaged")
}

// box encrypts under a key of keySize bytes, with a random nonce that it puts in front.
func box(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	aead, gcmErr := cipher.NewGCMWithRandomNonce(block)
	if err := errors.Join(err, gcmErr); err != nil {
		panic(err) // the sizes are right
	}
	return aead
}

// newSealedKey makes a key, has systemd-creds seal it, and has it opened again before it is relied on. Its error says why
// nothing here can seal, or that ctx is done.
func newSealedKey(ctx context.Context) (key, sealed []byte, err error) {
	key = make([]byte, keySize)
	rand.Read(key)
	if sealed, err = systemdCreds(ctx, "encrypt", key); err != nil {
		return nil, nil, err
	}
	opened, err := systemdCreds(ctx, "decrypt", sealed)
	if err == nil && !bytes.Equal(opened, key) {
		err = errors.New("what it sealed opens as something else")
	}
	return key, sealed, err
}

// systemdCreds has one thing sealed or opened, and ends with ctx: one that hangs must not hold up a stop. Root seals with the
// system's key; others need the scope of a user, which systemd has from version 256 on. The thing goes through pipes:
// arguments are for everybody to see.
func systemdCreds(ctx context.Context, verb string, input []byte) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, sealTime)
	defer cancel()
	arguments := []string{verb, "--name=" + sealName, "--newline=no", "-", "-"}
	if os.Geteuid() != 0 {
		arguments = append([]string{"--user"}, arguments...)
	}
	command := exec.CommandContext(bounded, "systemd-creds", arguments...)
	// NOTIFY_SOCKET is for the daemon alone (a systemd-creds that fails writes to it), and so is a token of Vault.
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	command.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	command.WaitDelay = time.Second
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what ends us from a terminal must not end it, as that tells nothing of sealing
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("systemd-creds %s: %w (it says: %s)", verb, err, credential.Clean(stderr.String()))
	}
	return stdout.Bytes(), nil
}
