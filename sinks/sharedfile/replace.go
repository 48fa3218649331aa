package sharedfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// replacement is one Update.
type replacement struct {
	*File
	place
	merge Merge
	// takenBack is a copy that was at the path and is beside the file, leased: it is what is exchanged next.
	takenBack *fileCopy
}

type attempt int

const (
	nothingToDo attempt = iota
	replaced
	overtaken // somebody else came first; nothing was changed
)

func (r *replacement) run(ctx context.Context) error {
	for deadline := time.Now().Add(heldFor); ; {
		if r.takenBack != nil { // it must get to the path again
			ctx = context.WithoutCancel(ctx)
		}
		state, err := r.try(ctx)
		if err != nil || state != overtaken {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s", credential.ErrHeld, r.path)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (r *replacement) try(ctx context.Context) (state attempt, err error) {
	old, err := r.openQuiet(ctx, r.place, heldFor)
	if err != nil {
		return nothingToDo, err
	}
	defer func() {
		if state != replaced { // else it is guarded
			old.close()
		}
	}()
	content, err := old.read()
	if err != nil {
		return nothingToDo, r.failed("read", err)
	}
	next, err := r.merge(content)
	if err != nil || bytes.Equal(next, content) && r.takenBack == nil {
		return nothingToDo, err
	}
	if old.stat.Nlink > 1 {
		return nothingToDo, fmt.Errorf("%w: %s has %d names (hard links), replacing it would part them",
			credential.ErrCannotSplice, r.path, old.stat.Nlink)
	}
	if r.appendOnly() { // a copy could be made there, and never be removed
		return nothingToDo, fmt.Errorf("%w: the directory of %s is append-only: chattr -a it", credential.ErrCannotSplice, r.path)
	}
	copied, err := r.prepare(old, content, next)
	if err != nil {
		return nothingToDo, err
	}
	state, err = r.exchange(old, content, next, copied)
	if state != replaced || err != nil {
		return state, err
	}
	if err := retryEINTR(func() error { return unix.Fsync(r.dir) }); err != nil && !isUnsupported(err) {
		return replaced, fmt.Errorf("sync the directory of %s: %w", r.path, err)
	}
	return replaced, nil
}

// prepare makes the copy, out of the one that was taken back if there is one.
func (r *replacement) prepare(old *openFile, content, next []byte) (*fileCopy, error) {
	if r.takenBack == nil {
		return r.newCopy(r.place, old, content, next)
	}
	if err := r.rewriteCopy(r.place, r.takenBack, old, content, next); err != nil {
		return nil, err
	}
	copied := r.takenBack
	r.takenBack = nil
	return copied, nil
}

// exchange puts copied, which holds next, in place of old, which holds content, unless somebody else came first. It takes
// over copied, and old if that was replaced.
func (r *replacement) exchange(old *openFile, content, next []byte, copied *fileCopy) (attempt, error) {
	if !r.shows(r.name, old.stat) || old.leaseBroken() {
		r.keepOrRemove(copied)
		return overtaken, nil
	}
	err := r.swap(copied.name)
	if err != nil && isForbidden(err) {
		return r.renameOver(old, content, copied)
	}
	if err != nil {
		r.keepOrRemove(copied)
		switch {
		case errors.Is(err, unix.EBUSY):
			return nothingToDo, fmt.Errorf("%w: %s is a mount point", credential.ErrCannotSplice, r.path)
		case errors.Is(err, unix.ENOENT): // the file, or the copy, was removed: the next look tells
			return overtaken, nil
		}
		return nothingToDo, r.failed("exchange", err)
	}
	copied.shown = true
	if !r.shows(copied.name, old.stat) || old.leaseBroken() || old.linked() || !old.leased && !unchanged(old, content) {
		err := r.takeBack(old, copied)
		r.unsettled = r.unsettled || err != nil
		return overtaken, err
	}
	copied.keepRights(old)
	copied.unlease()
	copied.close()
	r.guard(old, copied.name, next)
	return replaced, nil
}

// unchanged compares the content again; it serves where no lease vouches for it.
func unchanged(f *openFile, content []byte) bool {
	again, err := f.read()
	return err == nil && bytes.Equal(again, content)
}

// renameOver replaces the file where the exchange is not to be had, be it for lack of support or by a policy. An update that
// comes in the last microseconds is lost there; that is said once.
func (r *replacement) renameOver(old *openFile, content []byte, copied *fileCopy) (attempt, error) {
	if !r.shows(r.name, old.stat) || old.leaseBroken() || old.linked() || !unchanged(old, content) {
		r.keepOrRemove(copied)
		return overtaken, nil
	}
	defer copied.close()
	copied.keepRights(old)
	copied.unlease()
	if err := unix.Renameat(r.dir, copied.name, r.dir, r.name); err != nil {
		r.discard(r.place, copied.name)
		return nothingToDo, r.failed("replace", err)
	}
	r.logOnce(slog.LevelWarn, "exchanging files is not supported here: waiting for quiet moments instead", r.path)
	old.close()
	return replaced, nil
}

// takeBack undoes an exchange that displaced somebody's update: it puts back what was displaced, if our copy is still at
// the path. If it is not, whoever replaced it had seen the update or raced with it, and what is there stays. Should
// somebody replace our copy in the very instant of the putting back, theirs is put back in turn. What was at the path for an
// instant is not thrown away, as somebody may wait for it.
func (r *replacement) takeBack(old *openFile, copied *fileCopy) error {
	name, put := copied.name, copied
	for {
		displaced, err := r.protect(name, old)
		if err != nil {
			put.close()
			return r.failed("find what was displaced from", err)
		}
		if !r.shows(r.name, put.stat) {
			displaced.close()
			put.close()
			r.discard(r.place, name)
			return nil
		}
		err = r.swap(name)
		switch {
		case errors.Is(err, unix.ENOENT): // removed in this instant: no more at the path
			displaced.close()
		case err != nil:
			displaced.close()
			put.close()
			return r.failed("put back", err)
		case r.shows(name, put.stat):
			displaced.close()
			r.keepOrRemove(put)
			return nil
		default:
			put.close()
			put = displaced
		}
	}
}

// protect holds a file that was displaced, so that its inode number is not given to another. Where it can, it takes a
// write lease: put back, the file may have to go again, and then it serves as our copy. It must not open old, whose lease it
// would run into.
func (p place) protect(name string, old *openFile) (*fileCopy, error) {
	k := &fileCopy{openFile: &openFile{}, name: name}
	flags := unix.O_RDWR
	if p.shows(name, old.stat) {
		flags = unix.O_PATH
	}
	fd, err := unix.Openat(p.dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil && flags != unix.O_PATH {
		flags = unix.O_PATH
		fd, err = unix.Openat(p.dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	k.fd = fd
	if err := unix.Fstat(fd, &k.stat); err != nil {
		k.close()
		return nil, err
	}
	if flags != unix.O_PATH {
		k.lease(unix.F_WRLCK)
	}
	k.size, k.shown = k.stat.Size, k.stat.Nlink == 1
	return k, nil
}

// keepOrRemove is for a copy that is beside the file: it is kept, lease and all, if it was at the path.
func (r *replacement) keepOrRemove(copied *fileCopy) {
	if copied.shown && copied.leased {
		r.takenBack = copied
		return
	}
	r.discard(r.place, copied.name)
	copied.close()
}
