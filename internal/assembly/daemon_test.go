package assembly

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/filelock"
	"campaign-credsync/sync/state"
)

// TestReloadThatIsGivenUpLocksNothing: what a reload does under its time limit, and may still do after it, locks no file.
func TestReloadThatIsGivenUpLocksNothing(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf("instances: [{name: prod, source: file, file: %[1]s/s.json, config_file: %[1]s/c.xml}]\nstate_dir: %[1]s/state\n", dir)
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(filepath.Join(dir, "config.yaml"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(c.StateDir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := slog.New(slog.DiscardHandler)
	p := &process{Options: Options{Load: func() (*config.Config, error) { return c, nil }, Logger: log}}
	if _, err := p.reassemble(&assembly{config: c, store: store, log: log}); err != nil {
		t.Fatal(err)
	}
	id, err := filelock.IDOf(filepath.Join(dir, "c.xml"))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := filelock.Take(id, log)
	if err != nil {
		t.Fatalf("the file is locked: %v", err)
	}
	lock.Release()
}
