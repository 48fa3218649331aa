package survey

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Assumptions are what the tests of this project take nlserver to do. The JSON form is public: the stand-in of nlserver reads it, and a
// report has what was found in the same form. What was not asked is left out.
type Assumptions struct {
	Options    []string        `json:"options,omitempty"` // of config -?, those that set a credential, sorted
	Calls      map[string]Call `json:"calls,omitempty"`
	Write      string          `json:"write,omitempty"`      // in_place, pieces, rename or nothing
	Form       string          `json:"form,omitempty"`       // of the file outside of the attributes: kept, reformatted or changed
	Encryption string          `json:"encryption,omitempty"` // of the same secret, twice: random, deterministic, mixed or none
	Attributes []Attribute     `json:"attributes,omitempty"` // those that are set, in the order of the file
	Database   string          `json:"database,omitempty"`   // mentioned (in the output), or not known
	Module     string          `json:"module,omitempty"`     // after a restart: child (of the restart), elsewhere or not found
}

// The calls, by their names in the JSON, in the order in which they are made.
const (
	callOptions       = "options"        // config -?
	callWrongInstance = "wrong_instance" // an instance that there is not
	callTooFewFields  = "too_few_fields" // two of four
	callSet           = "set"
	callReload        = "reload"
	callRestart       = "restart"
)

var calls = []string{callOptions, callWrongInstance, callTooFewFields, callSet, callReload, callRestart}

// Call is what nlserver does with a command line.
type Call struct {
	Ended  string   `json:"ended"`            // exit N, signal NAME or timeout
	File   string   `json:"file"`             // the instance's: unchanged, written or damaged
	Prints []string `json:"prints,omitempty"` // without banner and times; HOME, INSTANCE and MODULE stand for the names
}

// Attribute is an attribute of <ims> and what it holds: the name of a field of the credential, in clear, or encrypted, empty, removed,
// other. Its value is no part of a report.
type Attribute struct {
	Name  string `json:"name"`
	Holds string `json:"holds"`
}

//go:embed assumptions.json
var assumed []byte

// Assumed are the assumptions of this build.
func Assumed() Assumptions {
	var a Assumptions
	if err := json.Unmarshal(assumed, &a); err != nil {
		panic(err) // it is a part of the program
	}
	return a
}

// Line compares one assumption with what was found. Found is empty where it was not asked.
type Line struct {
	What    string `json:"what"`
	Assumed string `json:"assumed"`
	Found   string `json:"found"`
	Differs bool   `json:"differs"`
}

// compare compares line by line.
func compare(assumed, found Assumptions) (lines []Line) {
	add := func(what, assumed, found string) {
		lines = append(lines, Line{what, assumed, found, found != "" && found != assumed})
	}
	add("options that set a credential", shown(assumed.Options), shown(found.Options))
	for _, name := range calls {
		a := assumed.Calls[name]
		f, asked := found.Calls[name]
		if !asked {
			add(called[name]+": end", a.Ended, "")
			continue
		}
		add(called[name]+": end", a.Ended, f.Ended)
		add(called[name]+": file", a.File, f.File)
		if name != callOptions { // whose list is another line
			add(called[name]+": output", shown(a.Prints), shown(f.Prints))
		}
	}
	add("how the file is written", assumed.Write, found.Write)
	add("form of the file", assumed.Form, found.Form)
	add("encryption of the same secret", assumed.Encryption, found.Encryption)
	if found.Calls[callSet].File == "written" {
		add("attributes of <ims>", attributes(assumed.Attributes), attributes(found.Attributes))
		add("organisation id in clear", holders(assumed.Attributes), holders(found.Attributes))
	}
	add("database", assumed.Database, found.Database)
	add("restarted module", assumed.Module, found.Module)
	return lines
}

// called is how a report names the calls.
var called = map[string]string{
	callOptions: "config -?", callWrongInstance: "set, an instance that there is not", callTooFewFields: "set, two of four fields",
	callSet: "set", callReload: "config -reload", callRestart: "restart",
}

// shown joins lines; none are a line, too.
func shown(lines []string) string {
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, " | ")
}

func attributes(all []Attribute) string {
	var lines []string
	for _, a := range all {
		lines = append(lines, fmt.Sprintf("%s: %s", a.Name, a.Holds))
	}
	slices.Sort(lines) // nobody relies on their order
	return shown(lines)
}

func holders(all []Attribute) string {
	var names []string
	for _, a := range all {
		if a.Holds == holdsOrgID {
			names = append(names, a.Name)
		}
	}
	return shown(names)
}
