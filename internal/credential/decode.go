package credential

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// FromJSON is the Credential of a Reading: what came from name, under version, is the JSON object. The object is kept as a
// secret, as a reading may be printed.
func FromJSON(name string, version Version, object []byte) func(Fields) (Credential, *Refusal) {
	secret := NewSecret(string(object))
	return func(fields Fields) (Credential, *Refusal) {
		c, reason := decode(fields, []byte(secret.Reveal()))
		if reason != "" {
			return Credential{}, &Refusal{Version: version, Reason: name + ": " + reason}
		}
		return c, nil
	}
}

// Canonical is the same however an object's keys are ordered and whatever white space is between them. Of what is no object it
// is the bytes themselves.
func Canonical(object []byte) []byte {
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
func decode(fields Fields, object []byte) (c Credential, reason string) {
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
		{name: FieldOrgID, into: &c.OrgID},
		{name: FieldClientID, into: &c.ClientID},
		{name: FieldTechnicalAccountID, into: &c.TechnicalAccountID},
		{name: FieldClientSecret, into: &clientSecret},
		{name: FieldPrivateKey, into: &privateKey, optional: true},
	} {
		key := fields.Key(field.name)
		value, there := values[key]
		absent := !there || bytes.Equal(bytes.TrimSpace(value), []byte("null"))
		switch {
		case absent && field.optional:
		case absent:
			return Credential{}, fmt.Sprintf("field %s is missing: the secret has no value for the key %q; add it, or set fields.%s "+
				"to the key that has it", field.name, Escape(key), field.name)
		case !strings.HasPrefix(string(bytes.TrimSpace(value)), `"`) || json.Unmarshal(value, field.into) != nil:
			return Credential{}, fmt.Sprintf("field %s is not a string; write the value of the key %q in quotes",
				field.name, Escape(key))
		}
	}
	c.ClientSecret = NewSecret(clientSecret)
	if privateKey != "" {
		c.PrivateKey = NewSecret(privateKey)
	}
	if err := c.Check(); err != nil {
		return Credential{}, err.Error() + "; correct it at its source and write a new version"
	}
	return c, ""
}
