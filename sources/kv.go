package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
)

// KV is one secret of a KV mount. Different KVs may be polled concurrently, one KV by one caller at a time.
type KV struct {
	*place
	engine engine

	worked   *token // the last token that this path did not answer 403 for
	ended    *token // worked here and is answered 403 for; another waits for its time
	endedErr error  // that 403
}

// engine is how a version of the KV engine is read.
type engine interface {
	// read is Poll with a token that may have ended.
	read(ctx context.Context, t *token, need func(credential.Version) bool) (credential.Reading, error)
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
		k.vault.proof.polled(k.worked)
	case ctx.Err() == nil:
		k.vault.proof.polled(nil)
	}
	return reading, err
}

func (k *KV) poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	for _, part := range []string{k.mount, k.path} {
		if err := checkPath(part); err != nil {
			return credential.Reading{}, fmt.Errorf("secret at %s/%s: %w", k.mount, k.path, err)
		}
	}
	session := k.vault.session
	t, err := session.token(ctx)
	if err != nil {
		return credential.Reading{}, err
	}
	var reading credential.Reading
	if err = k.endedErr; t != k.ended {
		reading, err = k.engine.read(ctx, t, need)
	}
	k.ended, k.endedErr = nil, nil
	if hasStatus(err, http.StatusForbidden) {
		other, loginErr := session.replace(ctx, t, k.worked == t)
		switch {
		case loginErr != nil:
			if w, ok := errors.AsType[*waiting](loginErr); ok && w.floor {
				k.ended, k.endedErr = t, err // nothing is asked with it until then
			}
			return credential.Reading{}, fmt.Errorf("%w; logging in again: %w", err, loginErr)
		case other == nil:
			return credential.Reading{}, k.forbidden(err)
		}
		t = other
		if reading, err = k.engine.read(ctx, t, need); hasStatus(err, http.StatusForbidden) {
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
	if file := k.vault.session.tokenFile; file != nil {
		return forPerson{fmt.Errorf("%w; the token in %s has ended or its policy does not allow it: write a new token there, with a "+
			"policy that allows to read %s", err, file.path, paths)}
	}
	return forPerson{fmt.Errorf("%w; give the role a policy that allows to read %s", err, paths)}
}

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
// decoded is errNotKV.
func (p *place) get(ctx context.Context, t *token, kind string, version int, into any) (now time.Time, err error) {
	if t, err = p.vault.session.used(ctx, t); err != nil {
		return now, err
	}
	bounded, cancel := p.vault.patience.bound(ctx, p.vault.gate)
	defer cancel()
	var query map[string][]string
	if version > 0 {
		query = map[string][]string{"version": {strconv.Itoa(version)}}
	}
	hide := p.vault.session.hide(t.text)
	step := "read " + p.name(kind)
	response, err := t.client.Logical().ReadRawWithDataWithContext(bounded, p.at(kind), query)
	if err != nil {
		err = p.vault.explain(ctx, step, err, hide...)
		if !hasStatus(err, http.StatusNotFound) || response == nil {
			return now, err
		}
	}
	defer response.Body.Close()
	content, readErr := io.ReadAll(response.Body)
	if readErr != nil {
		return now, p.vault.explain(ctx, step, readErr, hide...)
	}
	decodeErr := json.Unmarshal(content, into)
	if err == nil && decodeErr != nil {
		return now, errNotKV // its own text may quote the answer
	}
	return clock(response), err
}

// errNotKV is replaced by who knows what was expected.
var errNotKV = errors.New("not the answer of a KV mount")

func clock(response *api.Response) time.Time {
	if now, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		return now.Add(time.Second) // it is cut to the second, and a deletion just now is one
	}
	return time.Now()
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
