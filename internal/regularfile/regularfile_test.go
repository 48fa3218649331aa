package regularfile_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/regularfile"
)

// A wait would end the test with its time-out.
func TestWhatCannotBeReadIsSaidAtOnceWithItsRemedy(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		make  func(path string) error
		wants []string
	}{
		"FIFO":      {func(path string) error { return unix.Mkfifo(path, 0o600) }, []string{"is not a regular file; put one there"}},
		"directory": {func(path string) error { return os.Mkdir(path, 0o700) }, []string{"is not a regular file"}},
		"socket": {func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}, []string{"is not a regular file; put one there"}},
		"endless":       {func(path string) error { return os.Symlink("/dev/zero", path) }, []string{"is not a regular file"}},
		"terminal":      {func(path string) error { return os.Symlink("/dev/ptmx", path) }, []string{"is not a regular file"}},
		"absent":        {func(string) error { return nil }, []string{"no such file", "put the file there"}},
		"above a limit": {func(path string) error { return os.WriteFile(path, []byte("12345"), 0o600) }, []string{"is larger than 4 bytes; put the right file there"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			data, err := regularfile.Read(path, 4)
			if err == nil {
				t.Fatalf("read %d bytes", len(data))
			}
			for _, want := range append(c.wants, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if _, ok := errors.AsType[*fs.PathError](err); !ok {
				t.Errorf("%T is no *fs.PathError", err)
			}
		})
	}
}

func TestRegularFileIsReadThroughALink(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(file, []byte("1234"), 0o600), os.Symlink(file, file+".link")); err != nil {
		t.Fatal(err)
	}
	if data, err := regularfile.Read(file+".link", 4); err != nil || string(data) != "1234" {
		t.Errorf("%q, %v", data, err)
	}
}
