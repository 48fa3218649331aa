package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// metadataHidden is how long a policy that forbids the metadata is taken to go on doing so, jittered.
const metadataHidden = time.Hour

// kv2 reads a secret of a KV version 2 mount.
type kv2 struct {
	*place

	hiddenUntil time.Time // the metadata is forbidden: read the data instead
	retries     int64     // Vault's count when hiddenUntil was set
	gone        credential.Version
}

func (k *kv2) reads() []string { return []string{k.at("data"), k.at("metadata")} }

func (k *kv2) read(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error) {
	if k.retries == k.vault.retries.Load() && time.Now().Before(k.hiddenUntil) {
		return k.readData(ctx, t, credential.Version{}, need)
	}
	version, err := k.readMetadata(ctx, t)
	if isForbidden(err) {
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
func (k *kv2) readHidden(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error) {
	reading, err := k.readData(ctx, t, credential.Version{}, need)
	if _, refused := errors.AsType[*credential.Refusal](err); err == nil || refused {
		if k.hiddenUntil.IsZero() {
			k.vault.logger.Warn("the policy forbids the metadata, so every poll reads the secret itself",
				"path", k.name("metadata"), "reason", "permission denied")
		}
		k.hiddenUntil = time.Now().Add(metadataHidden - rand.N(metadataHidden/5))
		k.retries = k.vault.retries.Load()
	}
	return reading, err
}

func (k *kv2) wanted(version credential.Version, need func(credential.Version) bool) bool {
	return !k.gone.IsZero() && version.Equal(k.gone) || need(version)
}

type versionMetadata struct {
	Version      int       `json:"version"` // not in the list of all versions
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
}

// refusal tells why a version has no data, or returns nil. A deletion in the future is not one yet.
func (m versionMetadata) refusal(k *kv2, version credential.Version, now time.Time) error {
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
func (k *kv2) readMetadata(ctx context.Context, t *login.Token) (credential.Version, error) {
	var answer struct {
		Data *struct {
			CurrentVersion *int                       `json:"current_version"`
			Versions       map[string]versionMetadata `json:"versions"`
		} `json:"data"`
	}
	now, err := k.get(ctx, t, "metadata", 0, &answer)
	switch {
	case isNotFound(err):
		return credential.Version{}, k.missing()
	case err != nil && !errors.Is(err, connection.ErrUnexpected):
		return credential.Version{}, err
	case err != nil || answer.Data == nil || answer.Data.CurrentVersion == nil:
		return credential.Version{}, k.notKV2()
	}
	number := *answer.Data.CurrentVersion
	if number == 0 {
		return credential.Version{}, k.refuse(credential.Version{}, "%s has no version yet; write the credential there", k.name(""))
	}
	newest, ok := answer.Data.Versions[strconv.Itoa(number)]
	version := k.version(number, newest.CreatedTime)
	if !ok {
		return credential.Version{}, k.refuse(version, "%s does not list its newest version any more; write a new one", k.name(""))
	}
	return version, newest.refusal(k, version, now)
}

// readData reads the secret: exactly the version asked for, or the newest when that is zero, in which case need is
// asked afterwards.
func (k *kv2) readData(ctx context.Context, t *login.Token, asked credential.Version, need func(credential.Version) bool) (credential.Reading, error) {
	var answer struct {
		Data *struct {
			Data     json.RawMessage `json:"data"`
			Metadata versionMetadata `json:"metadata"`
		} `json:"data"`
	}
	now, err := k.get(ctx, t, "data", asked.Number, &answer)
	found := answer.Data != nil && answer.Data.Metadata.Version > 0
	switch {
	case errors.Is(err, connection.ErrTooLarge) && !asked.IsZero():
		return credential.Reading{}, k.refuse(asked, "%s: the secret is larger than %d KiB; write one there that holds the credential only",
			k.name(""), connection.MaxAnswer>>10)
	case errors.Is(err, connection.ErrUnexpected):
		return credential.Reading{}, k.notKV2()
	case err != nil && !isNotFound(err):
		return credential.Reading{}, err
	case err != nil && !found && !asked.IsZero():
		// Not a Refusal: the metadata list it, so it is a standby behind the others, or it went away just now.
		return credential.Reading{}, fmt.Errorf("vault at %s: version %d of %s is listed and cannot be read; asked again later",
			k.vault.connection.Address(), asked.Number, k.name(""))
	case err != nil && !found:
		return credential.Reading{}, k.missing()
	case !found:
		return credential.Reading{}, k.notKV2()
	}
	metadata := answer.Data.Metadata
	version := k.version(metadata.Version, metadata.CreatedTime)
	if err := metadata.refusal(k, version, now); err != nil {
		k.gone = version
		return credential.Reading{}, err
	}
	if need != nil && !k.wanted(version, need) {
		return credential.Reading{Version: version}, nil
	}
	k.gone = credential.Version{}
	return credential.Reading{Version: version, Credential: credential.FromJSON(k.name(""), version, answer.Data.Data)}, nil
}

func (k *kv2) version(number int, created time.Time) credential.Version {
	return credential.Version{Number: number, Created: created, Secret: k.vault.namespace + "/" + k.at("")}
}

func (k *kv2) missing() error {
	hint := "write it there, or correct mount and path (a mount of version 1 needs kv_version: 1)"
	if strings.HasPrefix(k.path, "data/") {
		hint = `leave out the "data/" of the path`
	}
	return k.refuse(credential.Version{}, "no secret at %s, or the policy hides it; %s", k.name(""), hint)
}

func (k *kv2) notKV2() error {
	return credential.NeedsOperator(fmt.Errorf("vault at %s: read %s: the answer is not that of a KV version 2 mount; check vault.address, the "+
		"mount, kv_version, and what stands before Vault", k.vault.connection.Address(), k.name("")))
}
