// Package e2e_test drives the daemon as a process, from outside, in a world of its own; see package world.
//
// The stand-in was written from Adobe's documentation; what passes here has not met the real nlserver.
package e2e_test

import (
	"os"
	"testing"

	"campaign-credsync/test/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }
