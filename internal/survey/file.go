package survey

import (
	"bytes"
	"fmt"
	"slices"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
	"campaign-credsync/sinks/imsxml"
)

// What an attribute may hold, besides the names of fields.
const (
	holdsOrgID     = credential.FieldOrgID
	holdsEncrypted = "encrypted"
	holdsEmpty     = "empty"
	holdsRemoved   = "removed"
	holdsOther     = "other"
)

// comparison is what a run did to the file.
type comparison struct {
	attributes []Attribute
	shapes     map[string]string
	encrypted  map[string]string // values by name; they stay here
	form       string
}

func isDamaged(content []byte) bool {
	_, err := imsxml.Parse(content)
	return err != nil
}

// compareFiles tells which attributes of <ims> were set, and whether the rest of the file is as it was. Both files are well-formed.
func (s *survey) compareFiles(t tried) comparison {
	c := comparison{shapes: map[string]string{}, encrypted: map[string]string{}, form: "changed"}
	was, err := imsxml.Parse(t.before)
	if err != nil {
		return c
	}
	is, err := imsxml.Parse(t.after)
	if err != nil {
		return c
	}
	before, after := was.Attributes(), is.Attributes()
	for _, a := range after {
		if before.Get(a.Name).Same(a) {
			continue
		}
		holds := s.holds(a.Value)
		c.attributes = append(c.attributes, Attribute{a.Name, holds})
		c.shapes[a.Name] = shape(a.Value)
		if holds == holdsEncrypted {
			c.encrypted[a.Name] = a.Value
		}
	}
	for _, a := range before {
		if after.Get(a.Name).Absent {
			c.attributes = append(c.attributes, Attribute{a.Name, holdsRemoved})
		}
	}
	names := slices.Concat(before.Names(), after.Names())
	slices.Sort(names)
	if undone, err := is.Set(before.Select(slices.Compact(names))); err == nil {
		switch {
		case bytes.Equal(undone, t.before) || isInsertion(t.before, undone):
			c.form = "kept"
		case imsxml.Same(undone, t.before):
			c.form = "reformatted"
		}
	}
	return c
}

// isInsertion reports whether after is before and one piece more, as where an <ims> was created.
func isInsertion(before, after []byte) bool {
	start := 0
	for start < min(len(before), len(after)) && before[start] == after[start] {
		start++
	}
	return len(after) >= len(before) && bytes.HasSuffix(after, before[start:])
}

// holds tells what a value is. The secret in clear would be a field's name, too.
func (s *survey) holds(value string) string {
	switch value {
	case "":
		return holdsEmpty
	case s.fields.OrgID:
		return holdsOrgID
	case s.fields.ClientID:
		return credential.FieldClientID
	case s.fields.TechnicalAccountID:
		return credential.FieldTechnicalAccountID
	case s.fields.ClientSecret.Reveal():
		return credential.FieldClientSecret
	}
	if ciphertext().MatchString(value) {
		return holdsEncrypted
	}
	return holdsOther
}

var ciphertext = lazyregexp.New(`^@?[A-Za-z0-9+/_\s-]{20,}={0,2}$`)

// shape describes a value without a piece of it.
func shape(value string) string {
	text := fmt.Sprintf("%d characters", len(value))
	if marked, ok := bytes.CutPrefix([]byte(value), []byte("@")); ok && ciphertext().Match(marked) {
		return text + ", @ and base64"
	}
	return text
}

// encryption compares what the same secret became, twice.
func encryption(first, second comparison) string {
	same, other := 0, 0
	for name, value := range first.encrypted {
		if second.encrypted[name] == value {
			same++
		} else {
			other++
		}
	}
	switch {
	case same == 0 && other == 0:
		return "none"
	case same == 0:
		return "random"
	case other == 0:
		return "deterministic"
	}
	return "mixed"
}
