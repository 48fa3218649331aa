package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// KV is one secret of a KV mount. Different KVs may be polled concurrently, one KV by one caller at a time.
type KV struct {
	vault       *Vault
	mount, path string
	engine      int // its version: 1 or 2

	worked      *login.Token       // the last token that this path did not answer 403 for
	hiddenUntil time.Time          // the metadata is forbidden: read the data instead
	gone        credential.Version // the version that was deleted at the last look
}

// KV names the secret at path (without "data/") of a mount of version 1 or 2 of the engine. Nothing is asked yet. A mount of version
// 1 keeps no versions: one is made of the content, with the digest key.
func (v *Vault) KV(mount, path string, engine int) *KV {
	return &KV{vault: v, mount: strings.Trim(mount, "/"), path: strings.Trim(path, "/"), engine: engine}
}

// Poll asks Vault for the newest version of the secret. In the steady state that is one request: for the metadata, or,
// where the policy forbids those or the mount has none, for the secret itself. need is asked, before a secret is read,
// whether the asker wants that version; when it does not, Credential is nil. A version that was deleted and came back is
// read whatever need says: its asker may have written it off.
//
// The error is a [*credential.Refusal] when Vault was reached and has no usable credential there. Any other error
// (unreachable, sealed, no permission, no login) says nothing about the secret. Poll does not wait between tries: a
// login that must wait makes it return at once, with the time of the next try. It returns early when ctx is done.
func (k *KV) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	reading, err := k.poll(ctx, need)
	if err == nil || isRefusal(err) {
		k.vault.health.Succeeded(k.worked)
	}
	return reading, credential.Because(connection.Reason(err), err)
}

func (k *KV) poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	if err := connection.CheckPath(k.at("")); err != nil {
		return credential.Reading{}, fmt.Errorf("secret at %s: %w", k.name(""), err)
	}
	session := k.vault.session
	t, err := session.token(ctx)
	if err != nil {
		return credential.Reading{}, err
	}
	reading, err := k.read(ctx, t, need)
	if isForbidden(err) {
		other, loginErr := session.replace(ctx, t, k.worked == t || connection.Answer(err).InvalidToken())
		switch {
		case loginErr != nil:
			return credential.Reading{}, fmt.Errorf("%w; logging in again: %w", err, loginErr)
		case other == nil:
			return credential.Reading{}, k.forbidden(err)
		}
		t = other
		if reading, err = k.read(ctx, t, need); isForbidden(err) {
			return credential.Reading{}, k.forbidden(err)
		}
	}
	if err == nil || isRefusal(err) {
		k.worked = t
	}
	return reading, err
}

// read is poll with a token that may have ended.
func (k *KV) read(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error) {
	if k.engine == 1 {
		return k.readContent(ctx, t, need)
	}
	if time.Now().Before(k.hiddenUntil) {
		return k.readData(ctx, t, credential.Version{}, need)
	}
	version, err := k.readMetadata(ctx, t)
	switch {
	case isForbidden(err):
		return k.readHidden(ctx, t, need)
	case err != nil:
		return credential.Reading{}, err
	case !k.wanted(version, need):
		return credential.Reading{Version: version}, nil
	}
	return k.readData(ctx, t, version, nil)
}

func (k *KV) forbidden(err error) error {
	paths := k.at("")
	if k.engine == 2 {
		paths = k.at("data") + " and " + k.at("metadata")
	}
	if s := k.vault.session; s.fromFile() {
		return credential.NeedsOperator(fmt.Errorf("%w; the token in %s has ended or its policy does not allow it: write a new token there, "+
			"with a policy that allows to read %s", err, s.auth.TokenFile, paths))
	}
	return credential.NeedsOperator(fmt.Errorf("%w; correct mount and path, or give the role a policy that allows to read %s", err, paths))
}

func isForbidden(err error) bool { return connection.Answer(err).Status == http.StatusForbidden }

func isNotFound(err error) bool { return connection.Answer(err).Status == http.StatusNotFound }

func isRefusal(err error) bool {
	_, is := errors.AsType[*credential.Refusal](err)
	return is
}

// get reads <mount>/<kind>/<path>, of that version where it is not 0, and decodes the answer, also that of a 404, which tells
// of a deleted version. now is the time by Vault's clock, which is what a deletion is measured by.
func (k *KV) get(ctx context.Context, t *login.Token, kind string, version int, into any) (now time.Time, err error) {
	if t, err = k.vault.session.used(ctx, t); err != nil {
		return now, err
	}
	var query map[string][]string
	if version > 0 {
		query = map[string][]string{"version": {strconv.Itoa(version)}}
	}
	now, err = k.vault.connection.Do(ctx, connection.Request{
		Step: "read " + k.name(kind), Path: k.at(kind), Query: query, Namespace: k.vault.config.Namespace, Token: t.Text,
	}, into)
	if errors.Is(err, connection.ErrUnexpected) {
		err = k.notKV()
	}
	return now, err
}

// at is the secret's path in Vault, that of the policy where kind is not empty.
func (k *KV) at(kind string) string {
	if kind != "" {
		kind += "/"
	}
	return k.mount + "/" + kind + k.path
}

// name is at for errors and logs.
func (k *KV) name(kind string) string { return credential.Escape(k.at(kind)) }

func (k *KV) refuse(code credential.Reason, version credential.Version, format string, args ...any) error {
	return &credential.Refusal{Version: version, Code: code, Reason: k.name("") + " " + fmt.Sprintf(format, args...)}
}

func (k *KV) tooLarge(version credential.Version) error {
	return k.refuse(credential.ReasonSecretMalformed, version, "is larger than %d KiB; write a secret there that holds the credential only", connection.MaxAnswer>>10)
}

func (k *KV) missing() error {
	return &credential.Refusal{Code: credential.ReasonSecretMissing, Reason: fmt.Sprintf("no secret at %s, or the policy hides it; write it there, or correct mount and path "+
		`(without "data/") and kv_version`, k.name(""))}
}

func (k *KV) notKV() error {
	return credential.NeedsOperator(fmt.Errorf("vault at %s: read %s: the answer is not that of a KV version %d mount; check vault.address, the "+
		"mount, kv_version, and what stands before Vault", k.vault.connection.Address(), k.name(""), k.engine))
}
