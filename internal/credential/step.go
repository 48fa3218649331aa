package credential

import "strings"

// Step is one step of activation: what makes Campaign's processes use a new credential. Two equal steps do the same work. Its text is
// what a record keeps, so it must not change its meaning; one of a newer release is kept as it is.
type Step struct {
	Kind   string // StepReload or StepRestart
	Module string // of StepRestart
}

// The kinds of step.
const (
	StepReload  = "reload"  // the web module reads its configuration again
	StepRestart = "restart" // of Module
)

// String returns "reload" or "restart web".
func (s Step) String() string {
	if s.Module == "" {
		return s.Kind
	}
	return s.Kind + " " + s.Module
}

// MarshalText returns the text of String.
func (s Step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (s *Step) UnmarshalText(text []byte) error {
	s.Kind, s.Module, _ = strings.Cut(string(text), " ")
	return nil
}
