package login_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/vaulttest/vaultlab"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // they wait more than they compute
	goleak.VerifyTestMain(vaulttest.Sharing{M: m})
}

const (
	path         = vaultlab.Path
	secretCanary = vaultlab.Canary
)

var (
	oauth  = vaultlab.OAuth
	always = vaultlab.Always
	never  = vaultlab.Never
)

// lab adds to what all tests of Vault begin with.
type lab struct{ *vaultlab.Lab }

func newLab(t *testing.T) *lab { return &lab{vaultlab.New(t)} }

func newLabOn(t *testing.T, server *vaulttest.Server, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *lab {
	return &lab{vaultlab.On(t, server, policy, ttl)}
}

// stateDir is for a command that only reads.
func (l *lab) stateDir() ([]byte, error) {
	return l.Config.DigestKey, os.MkdirAll(l.Config.StateDir, 0o700)
}
