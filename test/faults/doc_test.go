// Package faults_test breaks everything around the daemon, and the daemon itself, and asks afterwards: in sync or honestly degraded,
// every foreign byte kept, nothing left behind, activated as often as promised, no secret in any output (package world).
//
// The long forms run with -full (make faults); without it, each fault is tried in its shortest form. docs/faults.md lists them all.
package faults_test

import (
	"flag"
	"os"
	"testing"

	"campaign-credsync/test/world"
)

// full asks for the long form of tests that sweep, or wait.
var full = flag.Bool("full", false, "run the long form of every test")

// applyAtOnce is for a first apply over a credential that somebody else set; it is held otherwise.
const applyAtOnce = "first_apply: now"

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }
