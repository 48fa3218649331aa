package sharedfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// SettleStrays deals with the copies that a killed process left beside the file. One that holds what its name says was
// read or written is not needed: the other of the two, or something newer, is at the path. One that holds neither is
// somebody's update that an exchange displaced: it goes back to the path, or stays where it is, for a person, where the path was
// written since.
func (s *File) SettleStrays(ctx context.Context) (err error) {
	s.with(ctx, func(ctx context.Context, p place) error {
		err = p.settleStrays(ctx)
		return nil
	})
	if errors.Is(err, credential.ErrMissing) {
		err = nil
	}
	return err // where the file is not to be found, Read tells, and the first Update after that deals with them
}

func (p place) settleStrays(ctx context.Context) error {
	names, err := p.dir.Readdirnames(-1)
	if err != nil {
		return p.wrap("list the directory of", err)
	}
	p.unsettled = false
	for _, name := range names {
		if !strings.HasPrefix(name, copyPrefix(p.name)) || p.isGuarded(name) {
			continue
		}
		current, err := p.openQuiet(ctx)
		if err != nil {
			p.unsettled = true
			return err
		}
		err = p.settleStray(current, name)
		p.closeUnguarded(current)
		var errno unix.Errno
		switch {
		case errors.Is(err, credential.ErrBusy):
			p.unsettled = true
			return err
		case errors.As(err, &errno) && !isForbidden(err): // it may be over at the next try, and is no reason to leave the file alone
			p.unsettled = true
			p.logOnce(slog.LevelWarn, "a stray copy is dealt with later", p.beside(name), "reason", err.Error())
		case err != nil:
			p.logOnce(slog.LevelError, "a stray copy is left alone: look at it and remove it", p.beside(name), "reason", err.Error())
		}
	}
	return p.sync()
}

func (p place) isGuarded(name string) bool {
	for f := range p.guarded {
		if f.name == name {
			return true
		}
	}
	return false
}

// settleStray deals with one, while the path shows current.
func (p place) settleStray(current *openFile, name string) error {
	stray, err := p.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer stray.Close()
	// What somebody planted must not get to the path, with an owner or under a second name by which it can be changed.
	switch uid := stray.stat.Uid; {
	case stray.stat.Nlink > 1:
		return fmt.Errorf("it has %d names (hard links)", stray.stat.Nlink)
	case uid != 0 && uid != current.stat.Uid && uid != uint32(os.Geteuid()):
		return fmt.Errorf("it belongs to user %d, not to the owner of the configuration file", uid)
	}
	from, next, _ := strings.Cut(strings.TrimPrefix(name, copyPrefix(p.name)), "-")
	next, _, _ = strings.Cut(next, "-")
	switch from {
	case unfinished:
		return p.remove(name)
	case update:
		return errors.New("it may hold somebody's update")
	}
	content, err := stray.read()
	if err != nil {
		return err
	}
	shown, err := current.read()
	if err != nil {
		return err
	}
	switch sum, path := contentSum(content), contentSum(shown); {
	case sum == from || sum == next || sum == path:
		return p.remove(name)
	case path != from && path != next: // so that the update may be in it already, or not
		return errors.New("it holds somebody's update, and the configuration file was written since: put in what is lacking there")
	case current.stat.Nlink > 1:
		return fmt.Errorf("it holds somebody's update, and the configuration file has %d names (hard links), which putting it back would part",
			current.stat.Nlink)
	}
	if err := p.check(content); err != nil {
		return fmt.Errorf("it holds somebody's update and is not well-formed: %w", err)
	}
	outcome, err := p.exchange(current, stray, shown, content)
	p.unsettled = p.unsettled || outcome == stranded
	switch {
	case err != nil:
		return err
	case outcome != replaced:
		return fmt.Errorf("%w: %s", credential.ErrBusy, p.path)
	}
	p.log.Info("an update that a crash had displaced is back in place", "path", p.path)
	return nil
}
