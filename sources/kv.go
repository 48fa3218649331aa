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

// metadataHidden is how long a policy that forbids the metadata is taken to go on doing so, jittered.
const metadataHidden = time.Hour

// KV is one secret of a KV version 2 mount. Different KVs may be polled concurrently, one KV by one caller at a time.
type KV struct {
	vault       *Vault
	mount, path string
	fields      Fields

	worked      *token    // the last token that this path did not answer 403 for
	ended       *token    // worked here and is answered 403 for; another waits for its time
	endedErr    error     // that 403
	denied      *token    // neither data nor metadata may be read with it
	dataNext    bool      // which of them is asked for next with that one
	hiddenUntil time.Time // the metadata is forbidden: read the data instead
	retries     int64     // Vault's count when hiddenUntil was set
	gone        credential.Version
	warned      credential.Version // whose unusual shape was logged
}

// KV names the secret at path (without "data/") of a KV version 2 mount. Nothing is asked yet.
func (v *Vault) KV(mount, path string, fields Fields) *KV {
	return &KV{vault: v, mount: strings.Trim(mount, "/"), path: strings.Trim(path, "/"), fields: fields}
}

// Poll asks Vault for the newest version of the secret. In the steady state that is one request: for the metadata, or,
// where the policy forbids those, for the secret itself. need is asked, before a secret is read, whether the asker
// wants that version; when it does not, Credential is nil. A version that was deleted and came back is read whatever
// need says: its asker may have written it off.
//
// The error is a [*credential.Refusal] when Vault was reached and has no usable credential there. Any other error
// (unreachable, sealed, no permission, no login) says nothing about the secret. Poll does not wait between tries: a
// login that must wait makes it return at once, with the time of the next try. It returns early when ctx is done.
func (k *KV) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
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
		reading, err = k.read(ctx, t, need)
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
		if reading, err = k.read(ctx, t, need); hasStatus(err, http.StatusForbidden) {
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
	if file := k.vault.session.tokenFile; file != "" {
		return forPerson{fmt.Errorf("%w; the token in %s has ended or its policy does not allow it: write a new token there, with a "+
			"policy that allows to read %s/data/%s", err, file, k.mount, k.path)}
	}
	return forPerson{fmt.Errorf("%w; give the role a policy that allows to read %s/data/%s and %s/metadata/%s",
		err, k.mount, k.path, k.mount, k.path)}
}

func (k *KV) read(ctx context.Context, t *token, need func(credential.Version) bool) (credential.Reading, error) {
	if k.denied == t {
		// One question a poll is enough to see that one of them is allowed again.
		kind := "metadata"
		if k.dataNext {
			kind = "data"
		}
		k.dataNext = !k.dataNext
		if _, err := k.get(ctx, t, kind, 0, new(json.RawMessage)); hasStatus(err, http.StatusForbidden) {
			return credential.Reading{}, err
		}
		k.denied = nil
	}
	if k.retries == k.vault.retries.Load() && time.Now().Before(k.hiddenUntil) {
		return k.readData(ctx, t, credential.Version{}, need)
	}
	version, err := k.readMetadata(ctx, t)
	if hasStatus(err, http.StatusForbidden) {
		return k.readHidden(ctx, t, need)
	}
	if refusal, ok := errors.AsType[*credential.Refusal](err); ok {
		k.gone = refusal.Version
		return credential.Reading{}, err
	}
	if err != nil {
		return credential.Reading{}, err
	}
	if !k.wanted(version, need) {
		return credential.Reading{Version: version}, nil
	}
	return k.readData(ctx, t, version, nil)
}

// readHidden reads the data because the metadata are forbidden. Only when that is allowed it was the policy and not the
// token, and is worth remembering.
func (k *KV) readHidden(ctx context.Context, t *token, need func(credential.Version) bool) (credential.Reading, error) {
	reading, err := k.readData(ctx, t, credential.Version{}, need)
	if hasStatus(err, http.StatusForbidden) {
		k.denied = t
	}
	if _, refused := errors.AsType[*credential.Refusal](err); err == nil || refused {
		if k.hiddenUntil.IsZero() {
			k.vault.logger.Warn("the policy forbids the metadata, so every poll reads the secret itself",
				"path", k.name("metadata"), "reason", "permission denied")
		}
		k.hiddenUntil = time.Now().Add(time.Duration(float64(metadataHidden) * jitter()))
		k.retries = k.vault.retries.Load()
	}
	return reading, err
}

func (k *KV) wanted(version credential.Version, need func(credential.Version) bool) bool {
	return !k.gone.IsZero() && version.Equal(k.gone) || need(version)
}

type versionMetadata struct {
	Version      int       `json:"version"` // not in the list of all versions
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
}

// refusal tells why a version has no data, or returns nil. A deletion in the future is not one yet.
func (m versionMetadata) refusal(k *KV, version credential.Version, now time.Time) error {
	if m.Destroyed {
		return k.refuse(version, "%s is destroyed; write a new version", k.name(""))
	}
	if m.DeletionTime == "" {
		return nil
	}
	if at, err := time.Parse(time.RFC3339, m.DeletionTime); err == nil && at.After(now) {
		return nil
	}
	return k.refuse(version, "%s is deleted; undelete it or write a new version", k.name(""))
}

// readMetadata returns the newest version, or a Refusal when that is none to be read.
func (k *KV) readMetadata(ctx context.Context, t *token) (credential.Version, error) {
	var answer struct {
		Data *struct {
			CurrentVersion *int                       `json:"current_version"`
			Versions       map[string]versionMetadata `json:"versions"`
		} `json:"data"`
	}
	now, err := k.get(ctx, t, "metadata", 0, &answer)
	switch {
	case hasStatus(err, http.StatusNotFound):
		return credential.Version{}, k.missing()
	case err != nil:
		return credential.Version{}, err
	case answer.Data == nil || answer.Data.CurrentVersion == nil:
		return credential.Version{}, k.notKV2()
	}
	number := *answer.Data.CurrentVersion
	if number == 0 {
		return credential.Version{}, k.refuse(credential.Version{}, "%s has no version yet; write the credential there", k.name(""))
	}
	newest, ok := answer.Data.Versions[strconv.Itoa(number)]
	version := credential.Version{Number: number, Created: newest.CreatedTime}
	if !ok {
		return credential.Version{}, k.refuse(version, "%s does not list its newest version any more; write a new one", k.name(""))
	}
	return version, newest.refusal(k, version, now)
}

// readData reads the secret: exactly the version asked for, or the newest when that is zero, in which case need is
// asked afterwards.
func (k *KV) readData(ctx context.Context, t *token, asked credential.Version, need func(credential.Version) bool) (credential.Reading, error) {
	var answer struct {
		Data *struct {
			Data     json.RawMessage `json:"data"`
			Metadata versionMetadata `json:"metadata"`
		} `json:"data"`
	}
	now, err := k.get(ctx, t, "data", asked.Number, &answer)
	found := answer.Data != nil && answer.Data.Metadata.Version > 0
	switch {
	case errors.Is(err, errTooLarge) && !asked.IsZero():
		return credential.Reading{}, k.refuse(asked, "%s: the secret is larger than %d KiB; write one there that holds the credential only",
			k.name(""), maxAnswer>>10)
	case err != nil && !hasStatus(err, http.StatusNotFound):
		return credential.Reading{}, err
	case err != nil && !found && !asked.IsZero():
		// Not a Refusal: the metadata list it, so it is a standby behind the others, or it went away just now.
		return credential.Reading{}, fmt.Errorf("vault at %s: version %d of %s is listed and cannot be read; asked again later",
			k.vault.address, asked.Number, k.name(""))
	case err != nil && !found:
		return credential.Reading{}, k.missing()
	case !found:
		return credential.Reading{}, k.notKV2()
	}
	metadata := answer.Data.Metadata
	version := credential.Version{Number: metadata.Version, Created: metadata.CreatedTime}
	if err := metadata.refusal(k, version, now); err != nil {
		k.gone = version
		return credential.Reading{}, err
	}
	if need != nil && !k.wanted(version, need) {
		return credential.Reading{Version: version}, nil
	}
	c, reason := k.fields.credential(answer.Data.Data)
	if reason != "" {
		return credential.Reading{}, k.refuse(version, "%s: %s", k.name(""), reason)
	}
	k.gone = credential.Version{}
	if odd := c.Oddities(); len(odd) > 0 && !version.Equal(k.warned) {
		k.warned = version
		k.vault.logger.Warn("the shape of the credential is unusual", "path", k.name(""), "version", version.Number,
			"field", strings.Join(odd, ", "))
	}
	return credential.Reading{Version: version, Credential: &c}, nil
}

// get reads <mount>/<kind>/<path> and decodes the answer, also that of a 404, which tells of a deleted version. now is
// the time by Vault's clock, which is what a deletion is measured by.
func (k *KV) get(ctx context.Context, t *token, kind string, version int, into any) (now time.Time, err error) {
	bounded, cancel := k.vault.patience.bound(ctx)
	defer cancel()
	var query map[string][]string
	if version > 0 {
		query = map[string][]string{"version": {strconv.Itoa(version)}}
	}
	hide := k.vault.session.hide(t.text)
	step := "read " + k.name(kind)
	response, err := t.client.Logical().ReadRawWithDataWithContext(bounded, k.mount+"/"+kind+"/"+k.path, query)
	if err != nil {
		err = k.vault.explain(ctx, step, err, hide...)
		if !hasStatus(err, http.StatusNotFound) || response == nil {
			return now, err
		}
	}
	defer response.Body.Close()
	content, readErr := io.ReadAll(response.Body)
	if readErr != nil {
		return now, k.vault.explain(ctx, step, readErr, hide...)
	}
	decodeErr := json.Unmarshal(content, into)
	if err == nil && decodeErr != nil {
		return now, k.notKV2() // its own text may quote the answer
	}
	return clock(response), err
}

func clock(response *api.Response) time.Time {
	if now, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		return now.Add(time.Second) // it is cut to the second, and a deletion just now is one
	}
	return time.Now()
}

// name is the secret as errors and logs call it: as a person types it when kind is empty, else as the policy does.
func (k *KV) name(kind string) string {
	if kind != "" {
		kind += "/"
	}
	return credential.Escape(k.mount + "/" + kind + k.path)
}

func (k *KV) refuse(version credential.Version, format string, args ...any) error {
	return &credential.Refusal{Version: version, Reason: fmt.Sprintf(format, args...)}
}

func (k *KV) missing() error {
	hint := "write it there, or correct mount and path"
	if strings.HasPrefix(k.path, "data/") {
		hint = `leave out the "data/" of the path`
	}
	return k.refuse(credential.Version{}, "no secret at %s, or the policy hides it; %s", k.name(""), hint)
}

func (k *KV) notKV2() error {
	return forPerson{fmt.Errorf("vault at %s: read %s: the answer is not that of a KV version 2 mount; check vault.address, the "+
		"mount, and what stands before Vault", k.vault.address, k.name(""))}
}
