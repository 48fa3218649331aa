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
	*place
	engine engine

	worked *login.Token // the last token that this path did not answer 403 for
}

// engine is how a version of the KV engine is read.
type engine interface {
	// read is Poll with a token that may have ended.
	read(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error)
	// reads lists the paths that a policy must allow to read.
	reads() []string
}

// KV names the secret at path (without "data/") of a KV version 2 mount. Nothing is asked yet.
func (v *Vault) KV(mount, path string) *KV {
	p := newPlace(v, mount, path)
	return &KV{place: p, engine: &kv2{place: p}}
}

// KV1 names the secret at path of a KV version 1 mount, which keeps no versions: one is made of the content, with the
// digest key.
func (v *Vault) KV1(mount, path string) *KV {
	p := newPlace(v, mount, path)
	return &KV{place: p, engine: &kv1{place: p}}
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
	_, refused := errors.AsType[*credential.Refusal](err)
	switch {
	case err == nil || refused:
		k.vault.health.Succeeded(k.worked)
	case ctx.Err() == nil:
		k.vault.health.Failed()
	}
	return reading, err
}

func (k *KV) poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	for _, part := range []string{k.mount, k.path} {
		if err := connection.CheckPath(part); err != nil {
			return credential.Reading{}, fmt.Errorf("secret at %s/%s: %w", k.mount, k.path, err)
		}
	}
	session := k.vault.session
	t, err := session.token(ctx)
	if err != nil {
		return credential.Reading{}, err
	}
	reading, err := k.engine.read(ctx, t, need)
	if isForbidden(err) {
		other, loginErr := session.replace(ctx, t, k.worked == t || isInvalidToken(err))
		switch {
		case loginErr != nil:
			return credential.Reading{}, fmt.Errorf("%w; logging in again: %w", err, loginErr)
		case other == nil:
			return credential.Reading{}, k.forbidden(err)
		}
		t = other
		if reading, err = k.engine.read(ctx, t, need); isForbidden(err) {
			return credential.Reading{}, k.forbidden(err)
		}
	}
	var refusal *credential.Refusal
	if err == nil || errors.As(err, &refusal) {
		k.worked = t
	}
	return reading, err
}

func (k *KV) forbidden(err error) error {
	paths := strings.Join(k.engine.reads(), " and ")
	if s := k.vault.session; s.fromFile() {
		return credential.NeedsOperator(fmt.Errorf("%w; the token in %s has ended or its policy does not allow it: write a new token there, "+
			"with a policy that allows to read %s", err, s.auth.TokenFile, paths))
	}
	return credential.NeedsOperator(fmt.Errorf("%w; give the role a policy that allows to read %s", err, paths))
}

func isForbidden(err error) bool { return connection.Answer(err).Status == http.StatusForbidden }

// isInvalidToken reports what newer Vaults say of a token that has ended; older ones say no more than of a path that is forbidden.
func isInvalidToken(err error) bool {
	return strings.Contains(connection.Answer(err).Said, "invalid token")
}

func isNotFound(err error) bool { return connection.Answer(err).Status == http.StatusNotFound }

// place is where a secret is in Vault.
type place struct {
	vault       *Vault
	mount, path string
}

func newPlace(v *Vault, mount, path string) *place {
	return &place{vault: v, mount: strings.Trim(mount, "/"), path: strings.Trim(path, "/")}
}

// get reads <mount>/<kind>/<path>, of that version where it is not 0, and decodes the answer, also that of a 404, which tells
// of a deleted version. now is the time by Vault's clock, which is what a deletion is measured by. An answer that cannot be
// decoded is [connection.ErrUnexpected].
func (p *place) get(ctx context.Context, t *login.Token, kind string, version int, into any) (now time.Time, err error) {
	if t, err = p.vault.session.used(ctx, t); err != nil {
		return now, err
	}
	var query map[string][]string
	if version > 0 {
		query = map[string][]string{"version": {strconv.Itoa(version)}}
	}
	return p.vault.connection.Do(ctx, connection.Request{
		Step: "read " + p.name(kind), Path: p.at(kind), Query: query, Namespace: p.vault.namespace, Token: t.Text,
	}, into)
}

// name is the secret as errors and logs call it: as a person types it when kind is empty, else as the policy does.
func (p *place) name(kind string) string {
	return credential.Escape(p.at(kind))
}

func (p *place) at(kind string) string {
	if kind != "" {
		kind += "/"
	}
	return p.mount + "/" + kind + p.path
}

func (p *place) refuse(version credential.Version, format string, args ...any) error {
	return &credential.Refusal{Version: version, Reason: fmt.Sprintf(format, args...)}
}
