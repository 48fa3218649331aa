package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// kv1 reads a secret of a KV version 1 mount. It has no versions and no lighter question than the secret itself, so every
// poll reads that, and what is not needed is forgotten at once.
type kv1 struct{ *place }

func (k *kv1) reads() []string { return []string{k.at("")} }

func (k *kv1) read(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error) {
	var answer struct {
		Data     json.RawMessage `json:"data"`
		Warnings []string        `json:"warnings"`
	}
	_, err := k.get(ctx, t, "", 0, &answer)
	switch {
	case isNotFound(err):
		return credential.Reading{}, k.missing(answer.Warnings)
	case errors.Is(err, connection.ErrTooLarge):
		return credential.Reading{}, k.refuse(credential.Version{}, "%s: the secret is larger than %d KiB; write one there that holds "+
			"the credential only", k.name(""), connection.MaxAnswer>>10)
	case errors.Is(err, connection.ErrUnexpected) || err == nil && !isObject(answer.Data):
		return credential.Reading{}, credential.NeedsOperator(fmt.Errorf("vault at %s: read %s: the answer is not that of a KV mount; check vault.address, "+
			"the mount, and what stands before Vault", k.vault.connection.Address(), k.name("")))
	case err != nil:
		return credential.Reading{}, err
	case isVersion2(answer.Data):
		return credential.Reading{}, k.refuse(credential.Version{}, `%s is on a KV version 2 mount; set kv_version: 2 and leave out the "data/" `+
			"of the path", k.name(""))
	}
	version := credential.ContentVersion(k.vault.digestKey, credential.Canonical(answer.Data))
	if !need(version) {
		return credential.Reading{Version: version}, nil
	}
	return credential.Reading{Version: version, Credential: credential.FromJSON(k.name(""), version, answer.Data)}, nil
}

// missing tells a secret that is not there from a mount of version 2, which warns of the path.
func (k *kv1) missing(warnings []string) error {
	if strings.Contains(strings.Join(warnings, " "), "versioned K/V") {
		return k.refuse(credential.Version{}, "%s is on a KV version 2 mount; set kv_version: 2", k.name(""))
	}
	return k.refuse(credential.Version{}, "no secret at %s, or the policy hides it; write it there, or correct mount, path and kv_version", k.name(""))
}

func isObject(data json.RawMessage) bool { return len(data) > 0 && data[0] == '{' }

// isVersion2 recognises a secret of a version 2 mount, which is wrapped together with its metadata.
func isVersion2(data json.RawMessage) bool {
	var wrapped map[string]json.RawMessage
	if json.Unmarshal(data, &wrapped) != nil || len(wrapped) != 2 || !isObject(wrapped["data"]) {
		return false
	}
	var metadata versionMetadata
	return json.Unmarshal(wrapped["metadata"], &metadata) == nil && metadata.Version > 0 && !metadata.CreatedTime.IsZero()
}
