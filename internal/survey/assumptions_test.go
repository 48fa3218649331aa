package survey

import (
	"os"
	"slices"
	"testing"
)

// The stand-in shares no code with the product, so each has a copy.
func TestAssumptionsAreTheStandIns(t *testing.T) {
	standin, err := os.ReadFile("../../test/nlserver/assumptions.json")
	if err != nil || string(standin) != string(assumed) {
		t.Errorf("test/nlserver/assumptions.json differs from internal/survey/assumptions.json (%v)", err)
	}
	a := Assumed()
	for _, call := range calls {
		if a.Calls[call].Ended == "" {
			t.Errorf("nothing is assumed of %s", call)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, l := range compare(Assumed(), Assumed()) {
		if l.Differs || l.Found == "" {
			t.Errorf("the assumptions differ from themselves: %+v", l)
		}
	}
	if lines := compare(Assumed(), Assumptions{}); slices.ContainsFunc(lines[1:], func(l Line) bool { return l.Differs }) {
		t.Errorf("what was not asked differs: %+v", lines)
	}
	found := Assumed()
	found.Attributes = append(slices.Clone(found.Attributes), Attribute{"authIMSOrg", holdsOrgID})
	slices.Reverse(found.Attributes) // which nobody relies on
	var differ []string
	for _, l := range compare(Assumed(), found) {
		if l.Differs {
			differ = append(differ, l.What)
		}
	}
	if !slices.Equal(differ, []string{"attributes of <ims>", "organisation id in clear"}) {
		t.Errorf("differ: %q", differ)
	}
}
