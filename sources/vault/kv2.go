package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// metadataHidden is how long a policy that forbids the metadata is taken to go on doing so.
const metadataHidden = time.Hour

// readHidden reads the data because the metadata are forbidden. Only when that is allowed it was the policy and not the
// token, and is worth remembering.
func (k *KV) readHidden(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error) {
	reading, err := k.readData(ctx, t, credential.Version{}, need)
	if err == nil || isRefusal(err) {
		if k.hiddenUntil.IsZero() {
			k.vault.config.Logger.Warn("the policy forbids the metadata, so every poll reads the secret itself",
				"path", k.name("metadata"), "reason", "permission denied")
		}
		k.hiddenUntil = time.Now().Add(metadataHidden)
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

// judge returns a Refusal of a version that has no data, and remembers it. A deletion in the future is not one yet.
func (k *KV) judge(version credential.Version, m versionMetadata, now time.Time) error {
	if at, err := time.Parse(time.RFC3339, m.DeletionTime); !m.Destroyed && (m.DeletionTime == "" || err == nil && at.After(now)) {
		return nil
	}
	k.gone = version
	if m.Destroyed {
		return k.refuse(credential.ReasonSecretDeleted, version, "is destroyed; write a new version")
	}
	return k.refuse(credential.ReasonSecretDeleted, version, "is deleted; undelete it or write a new version")
}

// readMetadata returns the newest version, or a Refusal when that is none to be read.
func (k *KV) readMetadata(ctx context.Context, t *login.Token) (credential.Version, error) {
	var answer struct {
		Data struct {
			CurrentVersion *int                       `json:"current_version"`
			CreatedTime    string                     `json:"created_time"` // of the first version since the secret was last written anew
			Versions       map[string]versionMetadata `json:"versions"`
		} `json:"data"`
	}
	now, err := k.get(ctx, t, "metadata", 0, &answer)
	number := answer.Data.CurrentVersion
	switch {
	case isNotFound(err):
		return credential.Version{}, k.missing()
	case err != nil:
		return credential.Version{}, err
	case number == nil:
		return credential.Version{}, k.notKV()
	case *number == 0:
		return credential.Version{}, k.refuse(credential.ReasonSecretMissing, credential.Version{}, "has no version yet; write the credential there")
	}
	newest, listed := answer.Data.Versions[strconv.Itoa(*number)]
	version := k.version(*number, newest.CreatedTime)
	version.Begun, _ = time.Parse(time.RFC3339, answer.Data.CreatedTime)
	if !listed {
		k.gone = version
		return credential.Version{}, k.refuse(credential.ReasonSecretDeleted, version, "does not list its newest version any more; write a new one")
	}
	return version, k.judge(version, newest, now)
}

// readData reads the secret: exactly the version asked for, or the newest when that is zero, in which case need is
// asked afterwards.
func (k *KV) readData(ctx context.Context, t *login.Token, asked credential.Version, need func(credential.Version) bool) (credential.Reading, error) {
	var answer struct {
		Data struct {
			Data     json.RawMessage `json:"data"`
			Metadata versionMetadata `json:"metadata"`
		} `json:"data"`
	}
	now, err := k.get(ctx, t, "data", asked.Number, &answer)
	metadata := answer.Data.Metadata
	switch {
	case errors.Is(err, connection.ErrTooLarge):
		return credential.Reading{}, k.tooLarge(asked)
	case err != nil && !isNotFound(err):
		return credential.Reading{}, err
	case metadata.Version > 0:
		// Also a 404 has these, where the version was deleted.
	case err == nil:
		return credential.Reading{}, k.notKV()
	case asked.IsZero():
		return credential.Reading{}, k.missing()
	}
	version := k.version(metadata.Version, metadata.CreatedTime)
	switch {
	case asked.IsZero():
	case version.Equal(asked):
		version = asked // the metadata tell more
	default:
		// Not a Refusal: the metadata list it, so it is a standby behind the others, or it went away just now. What has its number may be
		// of the time before the secret was deleted and written anew.
		return credential.Reading{}, fmt.Errorf("vault at %s: version %d of %s is listed and cannot be read; asked again later",
			k.vault.connection.Address(), asked.Number, k.name(""))
	}
	if err := k.judge(version, metadata, now); err != nil {
		return credential.Reading{}, err
	}
	if need != nil && !k.wanted(version, need) {
		return credential.Reading{Version: version}, nil
	}
	k.gone = credential.Version{}
	return credential.Reading{Version: version, Credential: credential.FromJSON(k.name(""), version, answer.Data.Data)}, nil
}

func (k *KV) version(number int, created time.Time) credential.Version {
	return credential.Version{Number: number, Created: created, Secret: k.vault.config.Namespace + "/" + k.at("")}
}
