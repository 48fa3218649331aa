package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sync/event"
)

// Read returns the events of a state directory that are wanted, the oldest first, and how many lines are none: what was being written
// when a process was killed. It may be called while another process appends. Without a history there are no events.
func Read(dir string, wanted func(event.Event) bool) (events []event.Event, torn int, err error) {
	files, err := open(dir)
	for _, f := range files {
		defer f.Close()
	}
	for _, f := range files {
		var data []byte
		if err == nil {
			data, err = regularfile.ReadAll(f, MaxSize+maxLine)
		}
		for line := range bytes.Lines(data) {
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue
			}
			if e, ok := parsed(line); !ok {
				torn++
			} else if wanted(e) {
				events = append(events, e)
			}
		}
	}
	if err != nil {
		return nil, 0, err
	}
	return events, torn, nil
}

// Newest returns at most so many events that are wanted, the newest first. It looks at no line more than it takes to find them.
func Newest(dir string, most int, wanted func(event.Event) bool) (events []event.Event, err error) {
	files, err := open(dir)
	for _, f := range files {
		defer f.Close()
	}
	for _, f := range slices.Backward(files) {
		if err != nil || len(events) == most {
			break
		}
		var data []byte
		data, err = regularfile.ReadAll(f, MaxSize+maxLine)
		for len(data) > 0 && len(events) < most {
			data = bytes.TrimSuffix(data, []byte{'\n'})
			begin := bytes.LastIndexByte(data, '\n') + 1
			if e, ok := parsed(data[begin:]); ok && wanted(e) {
				events = append(events, e)
			}
			data = data[:begin]
		}
	}
	return events, err
}

// parsed is the event of a line. One that is no event was being written when a process was killed.
func parsed(line []byte) (e event.Event, ok bool) {
	ok = json.Unmarshal(line, &e) == nil && e.Kind != ""
	return e, ok
}

// open opens the older file and the one that is appended to, as far as they are there. The caller closes them, also after an error. If
// the one took the place of the other meanwhile, both are opened anew: else what is in between would be missing.
func open(dir string) (files []*os.File, err error) {
	path := filepath.Join(dir, fileName)
	for {
		before, _ := os.Lstat(path)
		files = nil
		for _, name := range []string{path + older, path} {
			f, _, err := regularfile.Open(name)
			switch {
			case err == nil:
				files = append(files, f)
			case errors.Is(err, regularfile.ErrNotRegular):
				return files, fmt.Errorf("%s is not a regular file; remove what is there", name)
			case !errors.Is(err, fs.ErrNotExist):
				return files, err
			}
		}
		after, _ := os.Lstat(path)
		if before == nil && after == nil || before != nil && after != nil && os.SameFile(before, after) {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
	}
}
