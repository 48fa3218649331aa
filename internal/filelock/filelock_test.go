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
	take := func(file string) (*filelock.Lock, error) {
		id, err := filelock.IDOf(file)
		if err != nil {
			t.Fatal(err)
		}
		return filelock.Take(id, slog.New(slog.DiscardHandler))
	}
	first, err := take(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take(filepath.Join(link, "a")); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("taken twice: %v", err)
	}
	other, err := take(filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	first.Release()
	if first, err = take(filepath.Join(dir, "a")); err != nil {
		t.Fatalf("released and not free: %v", err)
	}
	first.Release()
	if _, err := filelock.IDOf(filepath.Join(dir, "missing", "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its directory: %v", err)
	}
}
