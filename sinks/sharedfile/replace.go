package sharedfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// outcome is what became of one try to replace the file.
type outcome int

const (
	overtaken outcome = iota // somebody else came first; the copy is beside the file, and was never at the path
	takenBack                // the same, and the copy was at the path: somebody may have found it there
	gone                     // the copy was at the path, and somebody has replaced it there; what its name shows is not needed
	stranded                 // an error left somebody's update under the copy's name, a stray
	replaced                 // the file is replaced
)

// update tries once to put the outcome of merge in place of the file. It is not done if somebody else came first.
func (p place) update(ctx context.Context, merge Merge) (done bool, err error) {
	old, err := p.openQuiet(ctx)
	if err != nil {
		return false, err
	}
	defer p.closeUnguarded(old)
	content, err := old.read()
	if err != nil {
		return false, err
	}
	next, err := merge(content)
	if err != nil || bytes.Equal(next, content) {
		return true, err
	}
	if old.stat.Nlink > 1 {
		return false, fmt.Errorf("%w: %s has %d names (hard links), replacing it would part them",
			credential.ErrCannotSplice, p.path, old.stat.Nlink)
	}
	if p.appendOnly() { // a copy could be made there, and never be removed
		return false, fmt.Errorf("%w: the directory of %s is append-only: chattr -a it", credential.ErrCannotSplice, p.path)
	}
	copied, err := p.newCopy(old, content, next)
	if err != nil {
		return false, err
	}
	outcome, err := p.exchange(old, copied, content, next)
	if outcome == replaced {
		return true, p.sync()
	}
	p.letGo(copied, outcome)
	return false, err
}

// letGo is for a copy that is not at the path after all.
func (p place) letGo(copied *openFile, outcome outcome) {
	switch outcome {
	case takenBack:
		p.guard(copied, nil)
	case stranded:
		p.unsettled = true
		copied.Close()
	default:
		p.discard(copied)
	}
}

// exchange puts copied, which holds next and is beside the file, in place of old, which holds content, unless somebody else came
// first. When old is replaced, it is guarded, and copied closed.
func (p place) exchange(old, copied *openFile, content, next []byte) (outcome, error) {
	if !p.untouched(p.name, old, content) {
		return overtaken, nil
	}
	err := p.swap(copied.name)
	switch {
	case err == nil && p.untouched(copied.name, old, content):
		old.name, copied.name = copied.name, p.name
		copied.Close() // and so its lease is gone
		p.guard(old, next)
		return replaced, nil
	case err == nil:
		return p.takeBack(copied)
	case errors.Is(err, unix.EBUSY):
		return overtaken, fmt.Errorf("%w: %s is a mount point", credential.ErrCannotSplice, p.path)
	case errors.Is(err, unix.ENOENT): // the file, or the copy, was removed: the next look tells
		return overtaken, nil
	case !isForbidden(err):
		return overtaken, p.failed("exchange", err)
	}
	// The file system, or a policy, has no exchange. An update that comes in the last microseconds is lost.
	if err := p.rename(copied, p.name); err != nil {
		return overtaken, p.failed("replace", err)
	}
	copied.Close()
	p.logOnce(slog.LevelWarn, "exchanging files is not supported here: waiting for quiet moments instead", p.path)
	return replaced, nil
}

// untouched reports whether name shows old as it was opened: its rights are the same, it has no other name, nobody waits to write it,
// and where no lease vouches for it, its content is the same.
func (p place) untouched(name string, old *openFile, content []byte) bool {
	now, err := p.lookAt(name)
	was := old.stat
	if err != nil || !sameInode(now, was) || now.Mode != was.Mode || now.Uid != was.Uid || now.Gid != was.Gid || now.Nlink > 1 {
		return false
	}
	if old.leased != unix.F_UNLCK {
		return !old.leaseBroken()
	}
	again, err := old.read()
	return err == nil && bytes.Equal(again, content)
}

// takeBack undoes an exchange that displaced somebody's update: it exchanges once more, if our copy is still at the path. If it
// is not, whoever replaced it had seen the update or raced with it, and what is there stays. Should somebody replace our copy in
// the very instant of that exchange, theirs is exchanged back in turn.
func (p place) takeBack(copied *openFile) (outcome, error) {
	name, put := copied.name, copied
	for {
		displaced, err := p.openAt(name, unix.O_PATH) // held, so that its inode number is not given to another file
		if err != nil {
			return stranded, p.failed("find what was displaced from", err)
		}
		defer displaced.Close()
		if !p.shows(p.name, put.stat) {
			return gone, nil // what was displaced goes with the copy's name
		}
		err = p.swap(name)
		switch {
		case errors.Is(err, unix.ENOENT): // removed in this instant: no more at the path
		case err != nil:
			return stranded, p.failed("take our copy back from", err)
		case !p.shows(name, put.stat):
			put = displaced
		case put == copied:
			return takenBack, nil
		default:
			return gone, nil
		}
	}
}

// closeUnguarded closes f, which is guarded if it was replaced.
func (p place) closeUnguarded(f *openFile) {
	if !p.guarded[f] {
		f.Close()
	}
}
