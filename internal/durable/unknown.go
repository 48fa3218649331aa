package durable

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Unknown holds the fields of a JSON object that this release does not know. A newer release wrote them, and reads them again
// after a downgrade, so they are written back with the value that they belong to. It can be compared. The zero Unknown is none.
type Unknown struct{ fields string } // a JSON object, or empty

// Decode fills known, a pointer to a struct, from a JSON object, and returns the object's other fields.
func Decode(object []byte, known any) (Unknown, error) {
	if err := json.Unmarshal(object, known); err != nil {
		return Unknown{}, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(object, &all); err != nil {
		return Unknown{}, err
	}
	for _, field := range reflect.VisibleFields(reflect.TypeOf(known).Elem()) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		delete(all, name)
	}
	if len(all) == 0 {
		return Unknown{}, nil
	}
	fields, err := json.Marshal(all)
	return Unknown{string(fields)}, err
}

// Encode returns known, a struct or a pointer to one, as a JSON object that holds the unknown fields too.
func (u Unknown) Encode(known any) ([]byte, error) {
	object, err := json.Marshal(known)
	if err != nil || u.fields == "" {
		return object, err
	}
	if string(object) == "{}" {
		return []byte(u.fields), nil
	}
	return append(append(object[:len(object)-1], ','), u.fields[1:]...), nil
}

// IsZero reports whether there are no unknown fields.
func (u Unknown) IsZero() bool { return u.fields == "" }
