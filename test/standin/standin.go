// Package standin gives tests a home of Campaign whose nlserver is the stand-in of test/nlserver.
package standin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// build builds the stand-in for nlserver, once for all tests that want it.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nlserver-standin-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "nlserver")
	if out, err := exec.Command("go", "build", "-o", path, "campaign-credsync/test/nlserver").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-in: %w\n%s", err, out)
	}
	// Kept in memory, so that nothing has to be removed after the last test.
	program, err := os.ReadFile(path)
	return string(program), err
})

// Home is a Campaign home with the stand-in as nlserver and an instance called prod.
type Home struct {
	Path string
	t    *testing.T
}

// New makes a home.
func New(t *testing.T) *Home {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(t.TempDir(), "standin")
	if err := os.WriteFile(tool, []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	h := &Home{t: t, Path: filepath.Join(t.TempDir(), "nl 6")} // a space: nothing here is split by a shell
	h.tool(tool, "--standin-layout", h.Path)
	h.tool(tool, "--standin-instance", h.Path, "prod")
	return h
}

func (h *Home) tool(program string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", args, err, out)
	}
	return string(out)
}

// Faults says how the stand-in misbehaves from now on.
func (h *Home) Faults(switches string) {
	h.t.Helper()
	h.tool(filepath.Join(h.Path, "bin/nlserver"), "--standin-faults", h.Path, switches)
}

// Read returns a file below the home; "" when there is none.
func (h *Home) Read(name string) string {
	text, err := os.ReadFile(filepath.Join(h.Path, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	return string(text)
}
