package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"campaign-credsync/internal/durable"
)

func TestWriteFileReplacesAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first, and longer", "second"} {
		if err := durable.WriteFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestFailedWriteKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken") // a directory: the rename fails
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(path, []byte("new")); err == nil {
		t.Fatal("no error")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestRemovePartials(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.partial", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.RemovePartials(dir); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 || entries[0].Name() != "b" {
		t.Errorf("left: %v", entries)
	}
}

// Who may write to the directory cannot have a command of root's write through a link, nor keep a way to read the new file.
func TestWriteFileMakesAFileOfItsOwn(t *testing.T) {
	for name, plant := range map[string]func(elsewhere, partial string) error{
		"symbolic link": os.Symlink,
		"hard link":     os.Link,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			elsewhere, path := filepath.Join(dir, "elsewhere"), filepath.Join(dir, "file")
			if err := os.WriteFile(elsewhere, []byte("theirs"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := plant(elsewhere, path+".partial"); err != nil {
				t.Fatal(err)
			}
			if err := durable.WriteFile(path, []byte("ours")); err != nil {
				t.Fatal(err)
			}
			if content, err := os.ReadFile(elsewhere); err != nil || string(content) != "theirs" {
				t.Errorf("the file elsewhere is %q, %v", content, err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("written as %v, %v", info.Mode(), err)
			}
		})
	}
}
