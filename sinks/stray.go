package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sinks/imsxml"
)

// settleStrays deals with the copies that a killed daemon left beside the file. One that holds what its name says was
// read or written is not needed: the other of the two, or something newer, is at the path. One that holds neither is
// somebody's update that an exchange displaced: it goes back to the path, or stays where it is, for a person, where the path was
// written later still.
func (c *configFile) settleStrays(ctx context.Context) error {
	p, err := c.locate()
	if errors.Is(err, errUnsafe) {
		return err // a stray could be anybody's
	}
	if err != nil {
		return nil // Look tells, and goes on telling until the file is there
	}
	defer p.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settleStraysIn(ctx, p)
}

func (c *configFile) settleStraysIn(ctx context.Context, p place) error {
	names, err := p.strays()
	if err != nil {
		return c.wrap("list the directory of", err)
	}
	c.unsettled = true
	putBack, again := false, false
	for _, name := range names {
		if c.late[name] {
			continue
		}
		update, err := c.settleStray(ctx, p, name)
		switch {
		case errors.Is(err, credential.ErrHeld), err != nil && ctx.Err() != nil:
			return fmt.Errorf("stray copy %s: %w", name, err)
		case isPassing(err): // no reason to leave the instance alone, and neither is what follows
			again = true
			c.sayOnce(name, slog.LevelWarn, "a stray copy is dealt with later", err.Error())
		case err != nil:
			c.leaveAlone(name, err.Error())
		}
		putBack = putBack || update
	}
	if len(names) > 0 {
		if err := retryEINTR(func() error { return unix.Fsync(p.dir) }); err != nil {
			return c.wrap("sync the directory of", err)
		}
	}
	c.unsettled = again
	if putBack {
		c.log.Info("an update that a crash had displaced is back in place", "path", c.path)
	}
	return nil
}

func (p place) strays() ([]string, error) {
	fd, err := unix.Openat(p.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), "conf")
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

func (c *configFile) settleStray(ctx context.Context, p place, name string) (putBack bool, err error) {
	var current, found unix.Stat_t
	err = errors.Join(unix.Fstatat(p.dir, p.name, &current, unix.AT_SYMLINK_NOFOLLOW),
		unix.Fstatat(p.dir, name, &found, unix.AT_SYMLINK_NOFOLLOW))
	switch {
	case errors.Is(err, unix.ENOENT), err == nil && current.Mode&unix.S_IFMT != unix.S_IFREG:
		return false, nil // the stray stays what it is until there is a file again, if it has not gone itself
	case err != nil:
		return false, err
	}
	if reason := notOurs(found, current); reason != "" {
		return false, c.leaveAlone(name, reason)
	}
	sums := strings.TrimPrefix(name, copyPrefix(p.name))
	from, next, ok := strings.Cut(sums, "-")
	next, _, _ = strings.Cut(next, "-")
	switch {
	case from == unfinished:
		return false, c.removeStray(p, name)
	case strings.HasPrefix(from, displacedUpdate):
		return false, c.leaveAlone(name, "it holds somebody's update of the configuration file")
	case !ok:
		return false, c.leaveAlone(name, "the daemon does not make such names")
	}
	stray, err := c.open(place{dir: p.dir, name: name})
	if err != nil {
		return false, err
	}
	defer stray.close()
	if reason := notOurs(stray.stat, current); reason != "" {
		return false, c.leaveAlone(name, reason) // swapped since
	}
	content, err := stray.read()
	if err != nil {
		return false, fmt.Errorf("read it: %w", err)
	}
	if sum := contentSum(content); sum == from || sum == next {
		return false, c.removeStray(p, name)
	}
	if _, err := imsxml.Parse(content); err != nil {
		// Neither to be put in place nor ours to be thrown away; and no reason to leave the instance alone.
		return false, c.leaveAlone(name, fmt.Sprintf("it holds somebody's update and is not well-formed: %v", err))
	}
	return c.settleUpdate(ctx, p, name, stray, content, next)
}

// settleUpdate puts somebody's update back to the path, from which next displaced it. Where the path was written later it cannot
// tell whether that was done with the update in view: our copy was there, and after a crash no lease kept it from being read.
func (c *configFile) settleUpdate(ctx context.Context, p place, name string, stray *openFile, update []byte, next string) (putBack bool, err error) {
	current, err := c.openQuiet(ctx, p)
	if err != nil {
		return false, err
	}
	defer current.close()
	if laterWritten(current.stat, stray.stat) {
		shown, err := current.read()
		if err != nil {
			return false, fmt.Errorf("read %s: %w", c.path, err)
		}
		switch {
		case bytes.Equal(shown, update):
			return false, c.removeStray(p, name)
		case contentSum(shown) != next:
			return false, c.leaveAlone(name, "it holds somebody's update, and the configuration file was written since: put in what is lacking there")
		}
		// What was written later is our own copy, made without the update.
	}
	if err := swap(p, name); err != nil {
		return false, fmt.Errorf("put it back to %s: %w", c.path, err)
	}
	if p.shows(p.name, stray.stat) && p.shows(name, current.stat) && !current.leaseBroken() {
		return true, c.removeStray(p, name)
	}
	if err := swap(p, name); err != nil { // somebody came between: as it was, and once more later
		return false, fmt.Errorf("take it back from %s: %w", c.path, err)
	}
	return false, fmt.Errorf("%w: %s", credential.ErrHeld, c.path)
}

// notOurs tells why a stray can be neither a copy of ours nor a configuration file that one displaced: somebody planted
// it. What it holds must not get to the path, with an owner or under a second name by which it can be changed.
func notOurs(stray, current unix.Stat_t) string {
	switch {
	case stray.Mode&unix.S_IFMT != unix.S_IFREG:
		return "it is not a regular file"
	case stray.Nlink > 1:
		return fmt.Sprintf("it has %d names (hard links)", stray.Nlink)
	case stray.Uid != 0 && stray.Uid != current.Uid && stray.Uid != uint32(os.Geteuid()):
		return fmt.Sprintf("it belongs to user %d, not to the owner of the configuration file", stray.Uid)
	}
	return ""
}

// leaveAlone tells, once, of a stray that takes a person. It returns nil, as it is no reason to leave the instance alone.
func (c *configFile) leaveAlone(name, reason string) error {
	c.sayOnce(name, slog.LevelError, "a stray copy is left alone: look at it and remove it", reason)
	return nil
}

// sayOnce logs each fact about a stray once.
func (c *configFile) sayOnce(name string, level slog.Level, fact, reason string) {
	if c.said == nil {
		c.said = map[string]bool{}
	}
	if c.said[name+fact] {
		return
	}
	c.said[name+fact] = true
	c.log.Log(context.Background(), level, fact, "path", filepath.Join(filepath.Dir(c.path), name), "reason", reason)
}

// isPassing reports an error of the system that may be over at the next try.
func isPassing(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno) && !isForbidden(err)
}

func laterWritten(a, b unix.Stat_t) bool {
	return a.Mtim.Sec > b.Mtim.Sec || a.Mtim.Sec == b.Mtim.Sec && a.Mtim.Nsec > b.Mtim.Nsec
}

func (c *configFile) removeStray(p place, name string) error {
	if err := unix.Unlinkat(p.dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove it from beside %s: %w", c.path, err)
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
	content, err := regularfile.Read(i.path, maxFileSize)
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
