package nlserver

import (
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
)

func TestIsModule(t *testing.T) {
	const home = "/usr/local/neolane/nl6"
	for _, test := range []struct {
		module, executable, arguments string
		want                          bool
	}{
		{"web", home + "/bin/nlserver", "nlserver web", true},
		{"web", home + "/bin/nlserver", "nlserver -tracefile:web -detach", true},
		{"web", home + "/bin/nlserver (deleted)", "nlserver web", true}, // replaced by another build
		{"pipelined@prod", home + "/bin/nlserver", "nlserver pipelined@prod", true},
		{"pipelined@prod", home + "/bin/nlserver", "nlserver pipelined -tracefile:pipelined@prod", true},
		{"pipelined@prod", home + "/bin/nlserver", "nlserver pipelined@prod2", false},
		{"pipelined@prod", home + "/bin/nlserver", "nlserver pipelined@prod-eu", false},
		{"pipelined@prod", home + "/bin/nlserver", "nlserver pipelined@other", false},
		{"web", home + "/bin/nlserver", "nlserver webmdl", false},
		{"web", home + "/bin/nlserver", "nlserver web@prod", false},
		{"web", home + "/bin/nlserver", "nlserver restart web", false},
		{"web", home + "/bin/nlserver", "web", false}, // what it is called says nothing
		{"web", "/usr/local/neolane/nl6x/bin/nlserver", "nlserver web", false},
		{"web", "/bin/sh", "sh web", false},
	} {
		if got := isModule(home, test.module, test.executable, strings.Fields(test.arguments)); got != test.want {
			t.Errorf("%s, %s: %v", test.executable, test.arguments, got)
		}
	}
}

// A module that leaves its control group for ours is told from one that was in ours all the time.
func TestLeftFor(t *testing.T) {
	for _, test := range []struct {
		name   string
		before map[string]string
		want   string
	}{
		{"none before", nil, ""},
		{"in ours", map[string]string{"1 5": "/"}, ""},
		{"one of two in ours", map[string]string{"1 5": "/", "2 5": "/../campaign"}, ""},
		{"in another", map[string]string{"1 5": "/../campaign"}, "/"},
	} {
		if got := leftFor("/", test.before); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestJudge(t *testing.T) {
	const unit = "/system.slice/campaign-credsync.service"
	for _, test := range []struct {
		name   string
		before []string
		now    map[string]string
		unit   string
		want   credential.ProofResult
	}{
		{"another process", []string{"1 5"}, map[string]string{"2 7": "/campaign.slice"}, unit, credential.ProofSeen},
		{"the same number again", []string{"1 5"}, map[string]string{"1 7": ""}, "", credential.ProofSeen},
		{"none before", nil, map[string]string{"2 7": ""}, "", credential.ProofSeen},
		{"none", []string{"1 5"}, nil, unit, credential.ProofMissing},
		{"the old one", []string{"1 5"}, map[string]string{"1 5": ""}, unit, credential.ProofMissing},
		{"the old one and another", []string{"1 5"}, map[string]string{"1 5": "", "2 7": ""}, unit, credential.ProofMissing},
		{"one of two old ones and another", []string{"1 5", "3 5"}, map[string]string{"1 5": "", "2 7": ""}, unit, credential.ProofUnknown},
		{"in our unit", []string{"1 5"}, map[string]string{"2 7": unit}, unit, credential.ProofUnknown},
		{"below our unit", []string{"1 5"}, map[string]string{"2 7": unit + "/sub"}, unit, credential.ProofUnknown},
		{"one of two in our unit", nil, map[string]string{"2 7": unit, "3 8": "/"}, unit, credential.ProofUnknown},
		{"in a unit with a longer name", nil, map[string]string{"2 7": unit + "x"}, unit, credential.ProofSeen},
		{"in our container", []string{"1 5"}, map[string]string{"2 7": "/"}, "/", credential.ProofUnknown},
		{"not in our container", []string{"1 5"}, map[string]string{"2 7": "/../campaign"}, "/", credential.ProofSeen},
		{"no unit of ours", nil, map[string]string{"2 7": "/"}, "", credential.ProofSeen},
	} {
		if got, _ := judge("web", test.before, test.now, test.unit); got.Result != test.want || (got.Text == "") != (test.want == credential.ProofSeen) {
			t.Errorf("%s: %+v, want %s", test.name, got, test.want)
		}
	}
}
