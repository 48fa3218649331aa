package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"campaign-credsync/internal/credential"
)

// position is a place in the configuration file, both counted from 1. Columns are characters.
type position struct{ line, column int }

// problem is one thing wrong with the configuration. Its text never quotes a value that may be secret: a secret-id
// written where its file's name belongs is a likely mistake.
type problem struct {
	position
	key  string // such as instances[1].name; empty for the whole document
	text string
}

// Error is what is wrong with a configuration file, one line each.
type Error struct {
	file     string
	whole    error // the file could not be read at all
	problems []problem
}

// Error lists the problems, one a line, as FILE:LINE:COLUMN: KEY: PROBLEM.
func (e *Error) Error() string {
	file := credential.Escape(e.file)
	if e.whole != nil {
		if file == "" {
			file = `""` // --config=
		}
		return fmt.Sprintf("%s: %v", file, e.whole)
	}
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		key := ""
		if p.key != "" {
			key = p.key + ": "
		}
		lines[i] = fmt.Sprintf("%s:%d:%d: %s%s", file, p.line, p.column, key, p.text)
	}
	return strings.Join(lines, "\n")
}

// Touching returns the problems because of which the value of key is not known, or nil.
func (e *Error) Touching(key string) error {
	part := &Error{file: e.file, whole: e.whole}
	for _, p := range e.problems {
		if p.key == key || p.key == "" {
			part.problems = append(part.problems, p)
		}
	}
	if e.whole == nil && part.problems == nil {
		return nil
	}
	return part
}

// refuse notes a problem with the value of key, at that value or, where the file does not have the key, at the nearest
// group around it. The first problem of a key is the one to mend; what follows from it, also for the keys of a group that
// could not be read, would only confuse.
func (r *reader) refuse(key, format string, args ...any) {
	for group := parent(key); group != ""; group = parent(group) {
		if r.refused[group] {
			return
		}
	}
	r.refuseAt(r.where(key), key, format, args...)
}

func (r *reader) refuseIf(wrong bool, key, format string, args ...any) {
	if wrong {
		r.refuse(key, format, args...)
	}
}

func (r *reader) refuseAt(at position, key, format string, args ...any) {
	if r.refused[key] {
		return
	}
	r.refused[key] = true
	text := fmt.Sprintf(format, args...)
	if variable := r.from[key]; variable != "" {
		text = "(from " + variable + ") " + text
	}
	r.problems = append(r.problems, problem{at, key, text})
}

// where finds the nearest group that the file has: instances[1].fields.client_id, instances[1].fields, instances[1], …
func (r *reader) where(key string) position {
	for ; key != ""; key = parent(key) {
		if at, ok := r.at[key]; ok {
			return at
		}
	}
	return position{1, 1}
}

// given reports whether the file sets key.
func (r *reader) given(key string) bool {
	_, ok := r.at[key]
	return ok
}

func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

func (r *reader) sorted() []problem {
	slices.SortStableFunc(r.problems, func(a, b problem) int {
		return cmp.Or(a.line-b.line, a.column-b.column)
	})
	return r.problems
}
