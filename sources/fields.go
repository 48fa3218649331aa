package sources

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"campaign-credsync/internal/credential"
)

// pick is the Credential of a Reading: what came from name, under version, is the JSON object. The object is kept as a
// secret, as a reading may be printed.
func pick(name string, version credential.Version, object []byte) func(credential.Fields) (credential.Credential, *credential.Refusal) {
	secret := credential.NewSecret(string(object))
	return func(fields credential.Fields) (credential.Credential, *credential.Refusal) {
		c, reason := decode(fields, []byte(secret.Reveal()))
		if reason != "" {
			return credential.Credential{}, &credential.Refusal{Version: version, Reason: name + ": " + reason}
		}
		return c, nil
	}
}

// canonical is the same however an object's keys are ordered and whatever white space is between them. Of what is no object it
// is the bytes themselves.
func canonical(object []byte) []byte {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(object, &values); err != nil || values == nil {
		return object
	}
	written, err := json.Marshal(values) // sorts the keys
	if err != nil {
		return object
	}
	return written
}

// decode takes the credential out of the JSON object of a secret. reason is empty, or says why it cannot; it names
// fields and keys, and never a value.
func decode(fields credential.Fields, object []byte) (c credential.Credential, reason string) {
	if object = bytes.TrimSpace(object); len(object) == 0 || bytes.Equal(object, []byte("null")) {
		return c, "the secret holds no data; write the credential anew"
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(object, &values); err != nil {
		return c, "the secret is not a JSON object; write the credential anew" // the error may quote it
	}
	var clientSecret, privateKey string
	for _, field := range []struct {
		name     string
		into     *string
		optional bool
	}{
		{name: credential.FieldOrgID, into: &c.OrgID},
		{name: credential.FieldClientID, into: &c.ClientID},
		{name: credential.FieldTechnicalAccountID, into: &c.TechnicalAccountID},
		{name: credential.FieldClientSecret, into: &clientSecret},
		{name: credential.FieldPrivateKey, into: &privateKey, optional: true},
	} {
		key := fields.Key(field.name)
		value, there := values[key]
		absent := !there || bytes.Equal(bytes.TrimSpace(value), []byte("null"))
		switch {
		case absent && field.optional:
		case absent:
			return credential.Credential{}, fmt.Sprintf("field %s is missing: the secret has no value for the key %q; add it, or set fields.%s "+
				"to the key that has it", field.name, credential.Escape(key), field.name)
		case !strings.HasPrefix(string(bytes.TrimSpace(value)), `"`) || json.Unmarshal(value, field.into) != nil:
			return credential.Credential{}, fmt.Sprintf("field %s is not a string; write the value of the key %q in quotes",
				field.name, credential.Escape(key))
		}
	}
	c.ClientSecret = credential.NewSecret(clientSecret)
	if privateKey != "" {
		c.PrivateKey = credential.NewSecret(privateKey)
	}
	if err := c.Check(); err != nil {
		return credential.Credential{}, err.Error() + "; correct it at its source and write a new version"
	}
	return c, ""
}
