package login

import (
	"errors"
	"io/fs"
	"os"

	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
)

// maxRecord bounds a file of ours in bytes.
const maxRecord = 1 << 20

// readRecord fills record from a file in the state directory, and returns the fields of a newer release. A file that is not
// there, or was cut off, says nothing. One that cannot be read is an error: it may say no.
func readRecord(path string, record any) (unknown durable.Unknown, err error) {
	content, err := regularfile.Read(path, maxRecord)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unknown, nil
	case err != nil:
		return unknown, err
	}
	unknown, _ = durable.Decode(content, record)
	return unknown, nil
}

func writeRecord(path string, record any, unknown durable.Unknown) error {
	content, err := unknown.Encode(record)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(content, '\n'))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
