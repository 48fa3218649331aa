package release_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// A folder may have any name, and what is beside it stays.
func TestPackageInAFolderWithASpace(t *testing.T) {
	r := newRepository(t)
	r.write(t, "else/my", []byte("a file of somebody's"), 0o644)
	dist := filepath.Join(r.dir, "else", "my packages")
	r.must(t, "make", "package", "DIST="+dist, "FORMATS=deb", "ARCHES="+runtime.GOARCH, "PACKAGE_VERSION=1.0.0")
	for _, path := range []string{filepath.Join(dist, "campaign-credsync_1.0.0-1_"+runtime.GOARCH+".deb"), filepath.Join(r.dir, "else", "my")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// A program that fails in the middle of a pipe makes no package.
func TestPackageSaysThatTarFails(t *testing.T) {
	r := newRepository(t)
	programs := t.TempDir()
	if err := os.WriteFile(filepath.Join(programs, "tar"), []byte("#!/bin/sh\necho half; exit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.env = append(r.env, "PATH="+programs+":"+os.Getenv("PATH"))
	if said, err := r.try(t, "make", "package", "FORMATS=deb", "ARCHES="+runtime.GOARCH, "PACKAGE_VERSION=1.0.0"); err == nil {
		t.Errorf("make succeeds: %s", said)
	}
}
