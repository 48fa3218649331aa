// Package compatibility_test holds this code to what earlier releases left behind: testdata has a directory for each of them.
//
//	config.yaml, credentials/, nl6/, state/   what the daemon had, when it had stopped; @NAME@ stands for what differs from run to run
//	config.example.yaml, effective.yaml       the example of that release, and what it comes to
//	every-field.json                          a record with a value in every field
//	status.json, history.jsonl, metrics.txt   what the daemon answered at its control socket
//	requests/                                 what the commands asked there, byte for byte
//
// Those of a release are made from its code, by its tag, and never changed afterwards:
//
//	go test ./test/compatibility -run TestRecord -record v0.1.0
package compatibility_test

import (
	"os"
	"path/filepath"
	"testing"

	"campaign-credsync/test/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }

// instances are those of each release: prod waits for an operator, the others are in sync. away is paused.
var instances = []string{"prod", "vault", "file", "away"}

// secrets that the instances have.
const (
	handSecret  = "p8e-ByHandByHandByHandByHandByHand12"
	vaultSecret = "p8e-VaultVaultVaultVaultVaultVault12"
	fileSecret  = "p8e-FileFileFileFileFileFileFileFi12"
)

// releases are those of which there are files.
func releases(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no release in testdata: %v", err)
	}
	return dirs
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, content []byte, elem ...string) {
	t.Helper()
	path := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
