package standin

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FileState is all that a change of a file would show in.
type FileState struct {
	Content     string
	Mode        uint32
	Inode       uint64
	Links       uint64
	Mtim, Ctime unix.Timespec
}

// StateOf reads the state of a file.
func StateOf(t *testing.T, path string) FileState {
	t.Helper()
	var stat unix.Stat_t
	content, err := os.ReadFile(path)
	if err := errors.Join(err, unix.Lstat(path, &stat)); err != nil {
		t.Fatal(err)
	}
	return FileState{string(content), stat.Mode, stat.Ino, uint64(stat.Nlink), stat.Mtim, stat.Ctim}
}

// Touch has a file's times change again and again until the test ends, as a program that tends it may.
func Touch(t *testing.T, file string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			os.Chtimes(file, time.Now(), time.Now()) // fails while the file is being replaced
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}
