package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sync/event"
)

// Read returns the events of a state directory that are wanted, the oldest first, and how many lines are none: what was being written
// when a process was killed. It may be called while another process appends. Without a history there are no events.
func Read(dir string, wanted func(event.Event) bool) (events []event.Event, torn int, err error) {
	for _, name := range []string{fileName + older, fileName} {
		data, err := regularfile.Read(filepath.Join(dir, name), MaxSize+maxLine)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if errors.Is(err, regularfile.ErrNotRegular) {
			return nil, 0, fmt.Errorf("%s is not a regular file; remove what is there", filepath.Join(dir, name))
		}
		if err != nil {
			return nil, 0, err
		}
		for line := range bytes.Lines(data) {
			var e event.Event
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue
			}
			if json.Unmarshal(line, &e) != nil || e.Kind == "" {
				torn++
			} else if wanted(e) {
				events = append(events, e)
			}
		}
	}
	return events, torn, nil
}
