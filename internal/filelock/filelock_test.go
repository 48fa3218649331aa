package filelock_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"campaign-credsync/internal/filelock"
)

// TestLock: a file has one holder, under every path that leads to it; another file of the directory has its own.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	id := func(file string) filelock.ID {
		id, err := filelock.IDOf(file)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first, second := filelock.New(slog.New(slog.DiscardHandler)), filelock.New(slog.New(slog.DiscardHandler))
	defer second.Release()
	for range 2 { // a lock that is held may be taken again
		if err := first.Take(id(filepath.Join(dir, "a"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.Take(id(filepath.Join(link, "a"))); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("taken twice: %v", err)
	}
	if err := second.Take(id(filepath.Join(dir, "b"))); err != nil {
		t.Error(err)
	}
	first.Release()
	if err := second.Take(id(filepath.Join(dir, "a"))); err != nil {
		t.Error(err)
	}
	if err := first.Take(id(filepath.Join(dir, "b"))); err != nil {
		t.Errorf("what was held before is not free: %v", err)
	}
	first.Release()
	if _, err := filelock.IDOf(filepath.Join(dir, "missing", "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its directory: %v", err)
	}
}
