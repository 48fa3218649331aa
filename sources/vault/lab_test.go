package vault_test

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/vaulttest/vaultlab"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "16") // they wait more than they compute
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

type source = vaultlab.Source

// lab adds to what all tests of Vault begin with.
type lab struct {
	*vaultlab.Lab
	lastSaid string
}

func newLab(t *testing.T) *lab { return &lab{Lab: vaultlab.New(t)} }

func newLabWith(t *testing.T, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *lab {
	return &lab{Lab: vaultlab.With(t, policy, ttl)}
}

func newLabOn(t *testing.T, server *vaulttest.Server, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *lab {
	return &lab{Lab: vaultlab.On(t, server, policy, ttl)}
}
