package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// assumptions are how a good nlserver behaves. Those that it is built with are
// guesses; a survey of a real one makes a file that replaces them.
type assumptions struct {
	Options    []string        `json:"options"` // set options it knows
	Calls      map[string]call `json:"calls"`
	Write      string          `json:"write"`      // in_place, pieces or rename
	Form       string          `json:"form"`       // kept or reformatted
	Encryption string          `json:"encryption"` // random or deterministic
	Attributes []struct {
		Name  string `json:"name"`
		Holds string `json:"holds"`
	} `json:"attributes"`
	Database string `json:"database"` // not imitated
	Module   string `json:"module"`   // child: a restart starts the module as its child; else nothing runs
}

type call struct {
	Ended  string   `json:"ended"` // "exit 0"; "timeout": it hangs; "signal …": it kills itself
	File   string   `json:"file"`  // not imitated
	Prints []string `json:"prints"`
}

// The calls that have other names than the kind of a run.
const (
	callSet           = kindSet
	callReload        = kindReload
	callRestart       = kindRestart
	callOptions       = "options"
	callWrongInstance = "wrong_instance"
	callTooFewFields  = "too_few_fields"
)

const (
	writeRename             = "rename"
	writePieces             = "pieces"
	formReformatted         = "reformatted"
	encryptionDeterministic = "deterministic"
	moduleChild             = "child"
)

// answered is the end of a run for which the assumptions have the answer.
type answered struct{ call string }

func (a *answered) Error() string { return a.call }

//go:embed assumptions.json
var builtIn []byte

func assumptionsFile(home string) string { return filepath.Join(standinDir(home), "assumptions.json") }

func loadAssumptions(home string) (assumptions, error) {
	text, err := os.ReadFile(assumptionsFile(home))
	if errors.Is(err, os.ErrNotExist) {
		return parseAssumptions(builtIn)
	}
	if err != nil {
		return assumptions{}, err
	}
	return parseAssumptions(text)
}

// parseAssumptions reads assumptions, or a report that has them. What they leave
// out is as built.
func parseAssumptions(text []byte) (a assumptions, err error) {
	var report struct {
		Assumptions json.RawMessage `json:"assumptions"`
	}
	if err := json.Unmarshal(text, &report); err == nil && report.Assumptions != nil {
		text = report.Assumptions
	}
	if err := json.Unmarshal(builtIn, &a); err != nil {
		return a, err
	}
	attributes := a.Attributes
	a.Attributes = nil // the decoder would fill what is there
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil {
		return a, fmt.Errorf("assumptions.json: %w", err)
	}
	if a.Attributes == nil {
		a.Attributes = attributes
	}
	for name, c := range a.Calls {
		known := []string{callSet, callReload, callRestart, callOptions, callWrongInstance, callTooFewFields}
		if !slices.Contains(known, name) {
			return a, fmt.Errorf("assumptions.json: calls: %q is none of %v", name, known)
		}
		code, isExit := strings.CutPrefix(c.Ended, "exit ")
		if _, err := strconv.ParseUint(code, 10, 8); isExit && err != nil || !isExit && c.Ended != "timeout" && !strings.HasPrefix(c.Ended, "signal ") {
			return a, fmt.Errorf("assumptions.json: calls: %s: ended: %q is none of exit N, signal NAME and timeout", name, c.Ended)
		}
	}
	for _, one := range []struct {
		key, value string
		allowed    []string
	}{
		{"write", a.Write, []string{"in_place", writePieces, writeRename}},
		{"form", a.Form, []string{"kept", formReformatted}},
		{"encryption", a.Encryption, []string{"random", encryptionDeterministic}},
	} {
		if !slices.Contains(one.allowed, one.value) {
			return a, fmt.Errorf("assumptions.json: %s: %q is none of %v, and not imitated", one.key, one.value, one.allowed)
		}
	}
	return a, nil
}

func setAssumptions(home string, file []string) error {
	path := assumptionsFile(home)
	if len(file) == 0 {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := os.ReadFile(file[0])
	if err == nil {
		_, err = parseAssumptions(text)
	}
	if err != nil {
		return err
	}
	return replaceFile(path, text, 0o644)
}

// end is how a call ends: its exit code, unless it ends otherwise.
func (s *session) end(name string) int {
	if name == kindHelp {
		name = callOptions
	}
	ended := s.assumed.Calls[name].Ended
	switch {
	case ended == "timeout":
		s.wait("assumed timeout", forever)
	case strings.HasPrefix(ended, "signal "):
		dieNow()
	}
	code, _ := strconv.Atoi(strings.TrimPrefix(ended, "exit ")) // parseAssumptions has checked it
	return code
}

// prints are the lines of a call, with the names filled in.
func (s *session) prints(name string) []string {
	module := ""
	if len(s.call.modules) > 0 {
		module = s.call.modules[0]
	}
	fill := strings.NewReplacer("HOME", s.home, "INSTANCE", s.call.instance, "MODULE", module)
	var lines []string
	for _, line := range s.assumed.Calls[name].Prints {
		lines = append(lines, fill.Replace(line))
	}
	return lines
}

func (s *session) sayAll(call string) { s.sayLines(s.prints(call)) }

func (s *session) sayLines(lines []string) {
	for _, line := range lines {
		s.say("%s", line)
	}
}

// options are the set options that this build knows.
func (s *session) options() []string {
	if s.faults.Options != nil {
		return s.faults.Options
	}
	return s.assumed.Options
}

// version is what the banner says. A build that does not know setimsoauth is
// older than 7.4.1; its number is made up.
func (s *session) version() string {
	if slices.Contains(s.options(), "setimsoauth") {
		return "7.4.1 YY.R build 9383@abcdef1"
	}
	return "7.3.5 YY.R build 9368@abcdef1"
}
