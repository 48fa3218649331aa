package e2e_test

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// otherAssumptions are ways that the real nlserver may have, other than those that the stand-in is built with. Between them is each
// that the stand-in can imitate and a set that works.
var otherAssumptions = map[string]string{
	"renames": `{"write": "rename", "form": "reformatted", "attributes": [{"name": "authIMSTAOrgId", "holds": "ims_org_id"},
			{"name": "authIMSTAClientSecret", "holds": "encrypted"}, {"name": "authIMSTAId", "holds": "technical_account_id"},
			{"name": "authIMSTAClientId", "holds": "client_id"}],
		"calls": {"set": {"ended": "exit 0", "prints": ["Done."]}, "reload": {"ended": "exit 0", "prints": ["Reloading."]},
			"restart": {"ended": "exit 0", "prints": ["Stopping task 'MODULE'", "Starting task 'MODULE'"]}}}`,
	"writes in pieces and fails": `{"write": "pieces", "calls": {"options": {"ended": "exit 2"},
		"set": {"ended": "exit 1", "prints": []}, "reload": {"ended": "exit 0", "prints": []}}}`,
	"dies and starts modules itself": `{"write": "pieces", "form": "reformatted", "module": "child",
		"attributes": [{"name": "authIMSTAClientId", "holds": "client_id"}, {"name": "authIMSTAId", "holds": "technical_account_id"},
			{"name": "authIMSTAClientSecret", "holds": "encrypted"}, {"name": "authIMSTAState", "holds": "empty"}, {"name": "authIMSTAKind", "holds": "other"}],
		"calls": {"set": {"ended": "signal SIGSEGV"}, "restart": {"ended": "exit 0", "prints": ["Running task 'MODULE' in a new process."]}}}`,
	"an older build": `{"options": ["setimsauth"], "write": "rename", "encryption": "deterministic", "module": "child",
		"calls": {"set": {"ended": "exit 0", "prints": []}, "restart": {"ended": "exit 0", "prints": []}}}`,
}

var report = flag.String("report", "", "JSON report of a survey, for TestUnderOtherAssumptions; relative to test/e2e")

// What the daemon promises does not hang on how the stand-in behaves: a first apply, its activation, a rotation, reverts and their end, and a
// kill during an apply.
func TestUnderOtherAssumptions(t *testing.T) {
	t.Parallel()
	sets := maps.Clone(otherAssumptions)
	if *report != "" {
		text, err := os.ReadFile(*report)
		if err != nil {
			t.Fatal(err)
		}
		sets["report"] = string(text)
	}
	for name, text := range sets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := regexp.MustCompile(`"module":\s*"child"`).MatchString(text) // else there is nothing to be seen
			w := world.New(t, container.Options{
				Campaign: fmt.Sprintf("activate: {restart: [pipelined], prove: %v}", child), Settings: "drift: {max_reverts: 3}"})
			w.Must(w.SetAssumptions(w.Ctx, text))
			before := w.Read("prod")
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", secret)
			written := w.Read("prod")
			if was, is := meaning(t, before), meaning(t, written); was != is {
				t.Errorf("beside the credential, the file said\n%s\nand says\n%s", was, is)
			}
			w.Foreign["prod"] = world.ForeignBytes(written) // nlserver's own form

			w.Ran(1, "end", "reload")
			w.Ran(1, "end", "restart", "pipelined@prod")
			_, secret = w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", secret)
			w.Ran(2, "end", "reload")
			w.Ran(2, "end", "restart", "pipelined@prod")
			status, err := w.Asker().Status(w.Ctx)
			w.Must(err)
			if world.One(status, "prod").Proven != child {
				t.Errorf("proven: %v, want %v\n%s", !child, child, w.Log())
			}

			right := w.Read("prod")
			sets := w.CountRuns("start", "set")
			w.Edits("prod", func(d []byte) []byte {
				at := bytes.Index(d, []byte("<ims authIMSClientId")) // there is one in a comment, too
				comments, rest := bytes.Clone(d[:at]), d[at:]
				for _, name := range []string{"authIMSTAClientId", "authIMSTAClientSecret", "authIMSTAOrgId"} {
					if value := w.Attribute("prod", name); value != "" {
						rest = world.Replaced(t, rest, fmt.Sprintf(`%s="%s"`, name, value), name+`=""`)
					}
				}
				return append(comments, rest...)
			})
			w.Foreign["prod"] = world.ForeignBytes(right)
			w.AwaitStatus("the revert", reverts(1))
			if is := w.Read("prod"); !bytes.Equal(is, right) {
				t.Errorf("reverted, %s", world.FirstDifference(right, is))
			}
			for n := 2; n <= 3; n++ {
				w.Blank("prod")
				w.AwaitStatus("the revert", reverts(n))
			}
			w.Blank("prod")
			w.Is("prod", "drift/drift_brake")
			w.Ran(sets, "start", "set")

			// The daemon is killed in the middle of an apply, and nlserver lives on; then it is nlserver that leaves a part of the file.
			for n, faults := range []string{`{"write_delay": "10m", "times": 1}`, `{"write_delay": "10m", "write_half": true, "times": 1}`} {
				w.Faults(faults)
				_, secret = w.NewSecret("prod")
				w.Eventually("nlserver is at work", func() bool { return w.CountRuns("waiting", "set") == n+1 })
				w.Kill()
				w.StartDaemon()
				w.Is("prod", "degraded/recovering", "still running")
				w.Release()
				w.InSync(3 + n)
				w.Holds("prod", secret)
			}
		})
	}
}

func reverts(n int) func(container.Status) bool {
	return func(s container.Status) bool { return s.Is("in_sync") && world.One(s, "prod").RevertedTotal == n }
}

// ofPeople are the attributes of <ims> that belong to the login of people.
var ofPeople = []string{"authIMSClientId", "authIMSClientSecret", "authIMSCode", "authIMSEndpoint"}

// meaning is what a file says, however it is written, but for what nlserver may set.
func meaning(t *testing.T, document []byte) string {
	t.Helper()
	var b strings.Builder
	for decoder := container.Decoder(document); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == "ims" {
				token.Attr = slices.DeleteFunc(token.Attr, func(a xml.Attr) bool { return !slices.Contains(ofPeople, a.Name.Local) })
			}
			fmt.Fprintln(&b, token.Name.Local, token.Attr)
		case xml.EndElement:
			fmt.Fprintln(&b, "/"+token.Name.Local)
		case xml.CharData:
			if text := strings.TrimSpace(string(token)); text != "" {
				fmt.Fprintf(&b, "%q\n", text)
			}
		case xml.Comment:
			fmt.Fprintf(&b, "%q\n", string(token))
		}
	}
}
