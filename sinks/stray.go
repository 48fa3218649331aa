package sinks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
)

// settleStrays deals with the copies that a killed daemon left beside the file. One that holds what its name says was
// read or written is not needed: the other of the two, or something newer, is at the path. One that holds neither is
// somebody's update that an exchange displaced: it goes back to the path, unless the path was written later still.
// It returns how many updates were put back.
func (c *configFile) settleStrays() (putBack int, err error) {
	p, err := c.locate()
	if err != nil {
		return 0, nil // Look tells, and goes on telling until the file is there
	}
	defer p.close()
	names, err := p.strays()
	if err != nil {
		return 0, c.wrap("list the directory of", err)
	}
	for _, name := range names {
		update, err := c.settleStray(p, name)
		if err != nil {
			return putBack, err
		}
		if update {
			putBack++
		}
	}
	if len(names) > 0 {
		if err := unix.Fsync(p.dir); err != nil {
			return putBack, c.wrap("sync the directory of", err)
		}
	}
	return putBack, nil
}

func (p place) strays() ([]string, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", p.dir))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range all {
		if strings.HasPrefix(name, copyPrefix(p.name)) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (c *configFile) settleStray(p place, name string) (putBack bool, err error) {
	from, next, ok := strings.Cut(strings.TrimPrefix(name, copyPrefix(p.name)), "-")
	if !ok { // never finished
		return false, c.removeStray(p, name)
	}
	stray, err := c.open(place{p.dir, name})
	if err != nil {
		return false, err
	}
	defer stray.close()
	content, err := stray.read()
	if err != nil {
		return false, fmt.Errorf("read stray copy %s: %w", name, err)
	}
	if sum := contentSum(content); sum == from || sum == next {
		return false, c.removeStray(p, name)
	}
	if _, err := scanDocument(content); err != nil {
		// Neither to be put in place nor ours to be thrown away; and no reason to leave the instance alone.
		c.log.Error("a stray copy holds somebody's update and is not well-formed: look at it and remove it",
			"path", filepath.Join(filepath.Dir(c.path), name), "reason", err)
		return false, nil
	}
	current, err := c.open(p)
	if errors.Is(err, credential.ErrMissing) {
		return false, nil // the update stays what it is until there is a file again
	}
	if err != nil {
		return false, err
	}
	defer current.close()
	if laterWritten(current.stat, stray.stat) {
		shown, err := current.read()
		if err != nil {
			return false, c.wrap("read", err)
		}
		if contentSum(shown) != next {
			return false, c.removeStray(p, name)
		}
		// What was written later is our own copy, made without the update.
	}
	if err := swap(p, name); err != nil {
		return false, c.wrap("put an update back to", err)
	}
	return true, c.removeStray(p, name)
}

func laterWritten(a, b unix.Stat_t) bool {
	return a.Mtim.Sec > b.Mtim.Sec || a.Mtim.Sec == b.Mtim.Sec && a.Mtim.Nsec > b.Mtim.Nsec
}

func (c *configFile) removeStray(p place, name string) error {
	if err := unix.Unlinkat(p.dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove stray copy %s beside %s: %w", name, c.path, err)
	}
	return nil
}

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
	content, err := os.ReadFile(i.path)
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
