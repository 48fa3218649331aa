package credential

import "strings"

// Step is one step of activation: what makes Campaign's processes use a new credential. Two equal steps do the same work. Its text is
// what a record keeps, so it must not change its meaning; one of a newer release is kept as it is.
type Step struct {
	Kind   StepKind
	Module string // of StepRestart
}

// StepKind says what a step does.
type StepKind string

// The kinds of step.
const (
	StepReload  StepKind = "reload"  // the web module reads its configuration again
	StepRestart StepKind = "restart" // of Module
)

// String returns "reload" or "restart web".
func (s Step) String() string {
	if s.Module == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + " " + s.Module
}

// MarshalText returns the text of String.
func (s Step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (s *Step) UnmarshalText(text []byte) error {
	kind, module, _ := strings.Cut(string(text), " ")
	*s = Step{StepKind(kind), module}
	return nil
}
