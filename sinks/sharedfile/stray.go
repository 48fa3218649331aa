package sharedfile

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
)

// SettleStrays deals with the copies that a killed process left beside the file. One that holds what its name says was
// read or written is not needed: the other of the two, or something newer, is at the path. One that holds neither is
// somebody's update that an exchange displaced: it goes back to the path, or stays where it is, for a person, where the path was
// written later still.
func (s *File) SettleStrays(ctx context.Context) error {
	p, err := s.locate()
	if errors.Is(err, errUnsafe) {
		return err // a stray could be anybody's
	}
	if err != nil {
		return nil // Read tells, and goes on telling until the file is there
	}
	defer p.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settleStrays(ctx, p)
}

func (s *File) settleStrays(ctx context.Context, p place) error {
	names, err := p.strays()
	if err != nil {
		return s.wrap("list the directory of", err)
	}
	s.unsettled = true
	putBack, again := false, false
	for _, name := range names {
		if s.late[name] {
			continue
		}
		update, err := s.settleStray(ctx, p, name)
		switch {
		case errors.Is(err, credential.ErrHeld), err != nil && ctx.Err() != nil:
			return fmt.Errorf("stray copy %s: %w", name, err)
		case isPassing(err): // no reason to leave the file alone, and neither is what follows
			again = true
			s.logOnce(slog.LevelWarn, "a stray copy is dealt with later", s.beside(name), "reason", err.Error())
		case err != nil:
			s.leaveAlone(name, err.Error())
		}
		putBack = putBack || update
	}
	if len(names) > 0 {
		if err := retryEINTR(func() error { return unix.Fsync(p.dir) }); err != nil {
			return s.wrap("sync the directory of", err)
		}
	}
	s.unsettled = again
	if putBack {
		s.log.Info("an update that a crash had displaced is back in place", "path", s.path)
	}
	return nil
}

// leaveAlone tells, once, of a stray that takes a person.
func (s *File) leaveAlone(name, reason string) {
	s.logOnce(slog.LevelError, "a stray copy is left alone: look at it and remove it", s.beside(name), "reason", reason)
}

func (s *File) beside(name string) string { return filepath.Join(filepath.Dir(s.path), name) }

// settleStray deals with one. An error that is not passing takes a person.
func (s *File) settleStray(ctx context.Context, p place, name string) (putBack bool, err error) {
	current, err := p.lookAt(p.name)
	found, err2 := p.lookAt(name)
	switch err = errors.Join(err, err2); {
	case errors.Is(err, unix.ENOENT), err == nil && current.Mode&unix.S_IFMT != unix.S_IFREG:
		return false, nil // the stray stays what it is until there is a file again, if it has not gone itself
	case err != nil:
		return false, err
	}
	if err := notOurs(found, current); err != nil {
		return false, err
	}
	from, next, ok := strings.Cut(strings.TrimPrefix(name, copyPrefix(p.name)), "-")
	next, _, _ = strings.Cut(next, "-")
	switch {
	case from == unfinished:
		return false, s.remove(p, name)
	case strings.HasPrefix(from, displacedUpdate):
		return false, errors.New("it holds somebody's update of the configuration file")
	case !ok:
		return false, errors.New("the daemon does not make such names")
	}
	stray, err := s.open(place{dir: p.dir, name: name})
	if err != nil {
		return false, err
	}
	defer stray.close()
	if err := notOurs(stray.stat, current); err != nil {
		return false, err // swapped since
	}
	content, err := stray.read()
	if err != nil {
		return false, fmt.Errorf("read it: %w", err)
	}
	if sum := contentSum(content); sum == from || sum == next {
		return false, s.remove(p, name)
	}
	if err := s.check(content); err != nil { // neither to be put in place nor ours to be thrown away
		return false, fmt.Errorf("it holds somebody's update and is not well-formed: %w", err)
	}
	return s.putUpdateBack(ctx, p, name, stray, content, next)
}

// putUpdateBack puts somebody's update back to the path, from which next displaced it. Where the path was written later it cannot
// tell whether that was done with the update in view: our copy was there, and after a crash no lease kept it from being read.
func (s *File) putUpdateBack(ctx context.Context, p place, name string, stray *openFile, update []byte, next string) (putBack bool, err error) {
	current, err := s.openQuiet(ctx, p, heldFor)
	if err != nil {
		return false, err
	}
	defer current.close()
	if current.stat.Mtim.Nano() > stray.stat.Mtim.Nano() {
		shown, err := current.read()
		switch {
		case err != nil:
			return false, fmt.Errorf("read %s: %w", s.path, err)
		case bytes.Equal(shown, update):
			return false, s.remove(p, name)
		case contentSum(shown) != next: // else what was written later is our own copy, made without the update
			return false, errors.New("it holds somebody's update, and the configuration file was written since: put in what is lacking there")
		}
	}
	if err := p.swap(name); err != nil {
		return false, fmt.Errorf("put it back to %s: %w", s.path, err)
	}
	if p.shows(p.name, stray.stat) && p.shows(name, current.stat) && !current.leaseBroken() {
		return true, s.remove(p, name)
	}
	if err := p.swap(name); err != nil { // somebody came between: as it was, and once more later
		return false, fmt.Errorf("take it back from %s: %w", s.path, err)
	}
	return false, fmt.Errorf("%w: %s", credential.ErrHeld, s.path)
}

// notOurs tells why a stray can be neither a copy of ours nor a file that one displaced: somebody planted it. What it holds must
// not get to the path, with an owner or under a second name by which it can be changed.
func notOurs(stray, current unix.Stat_t) error {
	switch {
	case stray.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is not a regular file")
	case stray.Nlink > 1:
		return fmt.Errorf("it has %d names (hard links)", stray.Nlink)
	case stray.Uid != 0 && stray.Uid != current.Uid && stray.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("it belongs to user %d, not to the owner of the configuration file", stray.Uid)
	}
	return nil
}

// isPassing reports an error of the system that may be over at the next try.
func isPassing(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno) && !isForbidden(err)
}

func (s *File) remove(p place, name string) error {
	err := retryEINTR(func() error { return unix.Unlinkat(p.dir, name, 0) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove it from beside %s: %w", s.path, err)
	}
	return nil
}
