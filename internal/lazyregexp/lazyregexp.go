// Package lazyregexp has a regular expression compiled where it is first used.
//
// Most runs of the program use few of its expressions, and all of them compiled take 0.7 MiB of memory, a third of which stays for
// months. A mistake in an expression is not seen at the start: whoever writes one also writes the test that uses it.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that compiles the expression at its first call, and panics if it is none. Calls may come at the same time.
//
//go:noinline
func New(expression string) func() *regexp.Regexp { // inlined, it makes the program 45 KB larger
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
