package credential

import (
	"errors"
	"slices"

	"campaign-credsync/internal/durable"
)

// Attribute is an attribute as it stands in an instance's configuration file, its value unescaped.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	// Absent says that there must be no attribute of this name. Absent and empty differ: an empty attribute overrides
	// a default, an absent one does not.
	Absent bool `json:"absent,omitempty"`
	// Raw is how Value is written in the file, in its encoding and with the quotes. Empty: not known, as in old records.
	Raw []byte `json:"raw,omitempty"`

	unknown durable.Unknown
}

// Same reports whether both say the same. How they are written does not count.
func (a Attribute) Same(b Attribute) bool {
	return a.Name == b.Name && a.Value == b.Value && a.Absent == b.Absent
}

// UnmarshalJSON keeps the fields of a newer release.
func (a *Attribute) UnmarshalJSON(object []byte) (err error) {
	type plain Attribute
	a.unknown, err = durable.Decode(object, (*plain)(a))
	return err
}

// MarshalJSON writes them back.
func (a Attribute) MarshalJSON() ([]byte, error) {
	type plain Attribute
	return a.unknown.Encode(plain(a))
}

// Attributes is a set of attributes in the order of the file. As what is wanted it may hold absent ones.
type Attributes []Attribute

// Get returns the first attribute called name; one that is not in the set is absent.
func (a Attributes) Get(name string) Attribute { return a.Select([]string{name})[0] }

// Select returns the attribute of each name, in that order, as Get does. It takes time in proportion to both.
func (a Attributes) Select(names []string) Attributes {
	wanted := make(map[string]Attribute, len(names))
	for _, name := range names {
		wanted[name] = Attribute{Name: name, Absent: true}
	}
	for _, attribute := range slices.Backward(a) { // so that the first of a name stays
		if _, is := wanted[attribute.Name]; is {
			wanted[attribute.Name] = attribute
		}
	}
	selected := make(Attributes, 0, len(names))
	for _, name := range names {
		selected = append(selected, wanted[name])
	}
	return selected
}

// Names returns the names of all, in order.
func (a Attributes) Names() []string {
	names := make([]string, 0, len(a))
	for _, attribute := range a {
		names = append(names, attribute.Name)
	}
	return names
}

// Drift names the attributes of wanted that differ in seen. Attributes that wanted does not name belong to others.
func Drift(wanted, seen Attributes) []string {
	var names []string
	for i, is := range seen.Select(wanted.Names()) {
		if !wanted[i].Same(is) {
			names = append(names, is.Name)
		}
	}
	return names
}

// What a sink may find when it looks at an instance's configuration file or changes it. Each is wrapped with the path.
var (
	// ErrMissing: there is no file. It is never created, as it also holds the database login.
	ErrMissing = errors.New("the instance's configuration file is missing: restore it, or correct name or config_file")
	// ErrDamaged: the file is empty, cut off or not well-formed XML. It may last milliseconds, while an editor writes.
	ErrDamaged = errors.New("the instance's configuration file is not well-formed, and has to be repaired")
	// ErrBusy: somebody kept the file open for writing for longer than is worth waiting.
	ErrBusy = errors.New("the instance's configuration file is being written by somebody else")
	// ErrCannotSplice: the attributes cannot be put back into this file in place of an apply (bind mount, no <shared>).
	ErrCannotSplice = errors.New("the attributes cannot be put back by a splice")
	// ErrStillRunning: an nlserver of an earlier daemon is still at work on the instance.
	ErrStillRunning = errors.New("an nlserver started earlier is still running; it is waited for, and has to be ended if it hangs")
)
