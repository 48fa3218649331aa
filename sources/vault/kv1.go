package vault

import (
	"context"
	"encoding/json"
	"errors"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// readContent reads a secret of version 1 of the engine. It has no lighter question than that, so every poll asks it, and what is
// not needed is forgotten at once.
func (k *KV) readContent(ctx context.Context, t *login.Token, need func(credential.Version) bool) (credential.Reading, error) {
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	_, err := k.get(ctx, t, "", 0, &answer)
	switch {
	case isNotFound(err):
		return credential.Reading{}, k.missing()
	case errors.Is(err, connection.ErrTooLarge):
		return credential.Reading{}, k.tooLarge(credential.Version{})
	case err != nil:
		return credential.Reading{}, err
	case len(answer.Data) == 0 || answer.Data[0] != '{':
		return credential.Reading{}, k.notKV()
	}
	version := credential.ContentVersion(k.vault.config.DigestKey, credential.Canonical(answer.Data))
	if !need(version) {
		return credential.Reading{Version: version}, nil
	}
	return credential.Reading{Version: version, Credential: credential.FromJSON(k.name(""), version, answer.Data)}, nil
}
