package credential

import "errors"

// Attribute is an attribute as it stands in an instance's configuration file, its value unescaped.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	// Absent says that there must be no attribute of this name. Absent and empty differ: an empty attribute overrides
	// a default, an absent one does not.
	Absent bool `json:"absent,omitempty"`
}

// Attributes is a set of attributes in the order of the file. As what is wanted it may hold absent ones, as what was
// seen it holds those that are there.
type Attributes []Attribute

// Get returns the attribute called name; one that is not in the set is absent.
func (a Attributes) Get(name string) Attribute {
	for _, attribute := range a {
		if attribute.Name == name {
			return attribute
		}
	}
	return Attribute{Name: name, Absent: true}
}

// Drift names the attributes of wanted that differ in seen. Attributes that wanted does not name belong to others.
func Drift(wanted, seen Attributes) []string {
	var names []string
	for _, w := range wanted {
		if w != seen.Get(w.Name) {
			names = append(names, w.Name)
		}
	}
	return names
}

// What a sink may find when it looks at an instance's configuration file or changes it. Each is wrapped with the path.
var (
	// ErrMissing: there is no file. It is never created, as it also holds the database login.
	ErrMissing = errors.New("the instance's configuration file is missing: make the instance, or correct config_file")
	// ErrDamaged: the file is empty, cut off or not well-formed XML. It may last milliseconds, while an editor writes.
	ErrDamaged = errors.New("the instance's configuration file is not well-formed, and has to be repaired")
	// ErrHeld: somebody kept the file open for writing for longer than is worth waiting.
	ErrHeld = errors.New("the instance's configuration file is being written by somebody else")
	// ErrCannotSplice: the attributes cannot be put back into this file in place of an apply (bind mount, no <shared>).
	ErrCannotSplice = errors.New("the attributes cannot be put back by a splice")
	// ErrStillRunning: an nlserver of an earlier daemon is still at work on the instance.
	ErrStillRunning = errors.New("an nlserver started earlier is still running")
)
