package credential

import (
	"encoding/json"
	"fmt"
)

// FromJSON is the Credential of a Reading: what came from name, under version, is the JSON object. It is parsed here, once for all who
// share it.
func FromJSON(name string, version Version, object []byte) func(Fields) (Credential, *Refusal) {
	var values map[string]json.RawMessage
	if json.Unmarshal(object, &values) != nil {
		values = nil
	}
	return func(fields Fields) (Credential, *Refusal) {
		c, reason := decode(fields, values)
		if reason != "" {
			return Credential{}, &Refusal{Version: version, Code: ReasonSecretMalformed, Reason: name + ": " + reason}
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
	written, _ := json.Marshal(values) // sorts the keys, and has no error: all of it was JSON
	return written
}

// decode takes the credential out of the values of a secret's JSON object; nil if it is none. reason is empty, or says why it cannot; it
// names fields and keys, and never a value.
func decode(fields Fields, values map[string]json.RawMessage) (c Credential, reason string) {
	if values == nil {
		return c, "the secret is not a JSON object; write the credential anew" // the error may quote it
	}
	var clientSecret, privateKey string
	for _, field := range []struct {
		name string
		into *string
	}{
		{FieldOrgID, &c.OrgID},
		{FieldClientID, &c.ClientID},
		{FieldTechnicalAccountID, &c.TechnicalAccountID},
		{FieldClientSecret, &clientSecret},
		{FieldPrivateKey, &privateKey},
	} {
		key := fields.Key(field.name)
		var value *string // stays nil for null
		if raw, there := values[key]; there && json.Unmarshal(raw, &value) != nil {
			return Credential{}, fmt.Sprintf("field %s is not a string; write the value of the key %q in quotes", field.name, Escape(key))
		}
		switch {
		case value != nil:
			*field.into = *value
		case field.name != FieldPrivateKey: // which only JWT credentials have
			return Credential{}, fmt.Sprintf("field %s is missing: the secret has no value for the key %q; add it, or set fields.%s "+
				"to the key that has it", field.name, Escape(key), field.name)
		}
	}
	c.ClientSecret, c.PrivateKey = NewSecret(clientSecret), NewSecret(privateKey)
	if err := c.Check(); err != nil {
		return Credential{}, err.Error() + "; correct it at its source and write a new version"
	}
	return c, ""
}
