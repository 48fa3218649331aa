package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Run is a line of the stand-in's log.
type Run struct {
	Time       time.Time `json:"time"`
	PID        int       `json:"pid"`
	Event      string    `json:"event"` // start, waiting, child, end
	Kind       string    `json:"kind"`  // set, reload, restart, help
	Instance   string    `json:"instance"`
	Option     string    `json:"option"`
	Modules    []string  `json:"modules"`
	EnvOK      bool      `json:"env_ok"`
	At         string    `json:"at"`        // waiting: the fault that made it wait
	ChildPID   int       `json:"child_pid"` // child
	DurationUS int64     `json:"duration_us"`
	// SecretSHA256 is the beginning of the digest of what is set.
	SecretSHA256 string `json:"secret_sha256"`
}

// runLog is what was read of the stand-in's log. Lines are only ever added to it, and who waits for one asks again and again: each is
// parsed once.
type runLog struct {
	mu   sync.Mutex
	file os.FileInfo // that was read; nil: none yet
	size int64       // of the lines that were
	runs []Run
}

// Runs returns the stand-in's log.
func (c *Container) Runs() ([]Run, error) {
	c.runs.mu.Lock()
	defer c.runs.mu.Unlock()
	err := c.runs.readOn(filepath.Join(c.Home, "var", "standin", "runs.jsonl"))
	return slices.Clone(c.runs.runs), err
}

func (l *runLog) readOn(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		l.file, l.size, l.runs = nil, 0, nil
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if l.file == nil || !os.SameFile(l.file, info) || info.Size() < l.size {
		l.file, l.size, l.runs = info, 0, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(file, l.size, info.Size()-l.size))
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written: what crosses a page is seen in two parts
		}
		var r Run
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("log of the stand-in: %w", err)
		}
		l.size += int64(len(line))
		l.runs = append(l.runs, r)
	}
	return nil
}

// Ended counts the runs of a kind that have come to their end.
func (c *Container) Ended(kind string) (int, error) {
	runs, err := c.Runs()
	n := 0
	for _, r := range runs {
		if r.Event == "end" && r.Kind == kind {
			n++
		}
	}
	return n, err
}
