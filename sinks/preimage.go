package sinks

import (
	"errors"
	"fmt"
	"os"

	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sinks/sharedfile"
)

// preimage is the file as it was before a command of ours that writes was started. It exists while such a command runs,
// and after one whose end nobody saw.
type preimage struct{ path string }

func (i preimage) save(content []byte) error {
	if err := durable.WriteFile(i.path, content); err != nil {
		return fmt.Errorf("save the configuration before it is written: %w", err)
	}
	return nil
}

// load returns nil without an error when there is none.
func (i preimage) load() ([]byte, error) {
	content, err := regularfile.Read(i.path, sharedfile.MaxSize)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration saved before it was written: %w", err)
	}
	return content, nil
}

func (i preimage) drop() error {
	if err := os.Remove(i.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop the configuration saved before it was written: %w", err)
	}
	return nil
}
