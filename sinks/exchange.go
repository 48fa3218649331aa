package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// The file is replaced by exchanging it with a finished copy (renameat2 RENAME_EXCHANGE), so that the displaced file is
// in our hands and can be judged: when it is not exactly what the copy was made from, somebody's update is in it, and
// it is put back. Leases close the gaps that are left:
//
//   - a read lease on what we read: it is refused while anybody has the file open for writing, and anybody who opens it
//     for writing from then on waits, visibly to us, until we are done;
//   - a write lease on our copy until the displaced file was judged: whoever opens the path meanwhile waits, so nobody
//     starts from a copy that is taken back. If somebody waits for a copy that had to be taken back, that very copy is
//     rewritten with the update in it and exchanged again, lease held, so that they end up at the path.
//
// What is left is nanoseconds wide, between an open() that has found the inode and its lease check. It is looked into
// afterwards (rescue).

// merge turns the current content into the wanted one; returning the same bytes means that nothing is to be done.
type merge func(current []byte) ([]byte, error)

// replace puts the outcome of m in place of the content and reports whether it had to. It starts again, from what is
// there by then, whenever somebody else came first. Errors: those of m, credential.ErrMissing, ErrHeld,
// ErrCannotSplice.
func (c *configFile) replace(ctx context.Context, m merge) (changed bool, err error) {
	p, err := c.locate()
	if err != nil {
		return false, err
	}
	defer p.close()
	if c.unsettled { // what cannot be settled now either is no reason to leave the file as it is
		c.settleStraysIn(ctx, p)
	}
	r := &replacement{configFile: c, place: p, merge: m}
	defer r.letGo()
	deadline := time.Now().Add(heldFor)
	for {
		state, err := r.try(ctx)
		if err != nil || state != overtaken {
			return state == replaced, err
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("%w: %s", credential.ErrHeld, c.path)
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
}

// replacement is one call of replace.
type replacement struct {
	*configFile
	place
	merge merge
	// waited is a copy that was taken back while somebody waits for its lease. It is beside the file.
	waited *fileCopy
}

type attempt int

const (
	nothingToDo attempt = iota
	replaced
	overtaken // somebody else came first; nothing was changed
)

func (r *replacement) try(ctx context.Context) (attempt, error) {
	old, err := r.openQuiet(ctx, r.place)
	if err != nil {
		return nothingToDo, err
	}
	defer old.close()
	content, err := old.read()
	if err != nil {
		return nothingToDo, r.wrap("read", err)
	}
	next, err := r.merge(content)
	if err != nil || bytes.Equal(next, content) && r.waited == nil {
		return nothingToDo, err
	}
	if old.stat.Nlink > 1 {
		return nothingToDo, fmt.Errorf("%w: %s has %d names (hard links), replacing it would part them",
			credential.ErrCannotSplice, r.path, old.stat.Nlink)
	}
	copied, err := r.prepare(old, content, next)
	if err != nil {
		return nothingToDo, err
	}
	state, err := r.exchange(old, content, copied)
	if state != replaced || err != nil {
		return state, err
	}
	if err := retryEINTR(func() error { return unix.Fsync(r.dir) }); err != nil {
		return replaced, r.wrap("sync directory of", err)
	}
	if !old.leaseBroken() {
		return replaced, nil
	}
	// Somebody got hold of the displaced file in the instant before it was displaced.
	old.unlease()
	return replaced, r.rescue(ctx, old, content, next, r.merge)
}

// prepare makes the copy, out of the one that is waited for if there is one.
func (r *replacement) prepare(old *openFile, content, next []byte) (*fileCopy, error) {
	if r.waited == nil {
		return r.newCopy(r.place, old, content, next)
	}
	if err := r.rewriteCopy(r.place, r.waited, old, content, next); err != nil {
		return nil, err
	}
	copied := r.waited
	r.waited = nil
	return copied, nil
}

// exchange puts copied in place of old, unless somebody else came first. It takes over copied.
func (r *replacement) exchange(old *openFile, content []byte, copied *fileCopy) (attempt, error) {
	if !r.shows(r.name, old.stat) || old.leaseBroken() {
		r.keepOrRemove(copied)
		return overtaken, nil
	}
	err := swap(r.place, copied.name)
	switch {
	case errors.Is(err, unix.EBUSY):
		r.keepOrRemove(copied)
		return nothingToDo, fmt.Errorf("%w: %s is a mount point", credential.ErrCannotSplice, r.path)
	case isUnsupported(err):
		return r.renameOver(old, content, copied)
	case err != nil:
		r.keepOrRemove(copied)
		return nothingToDo, r.wrap("exchange", err)
	}
	if !r.shows(copied.name, old.stat) || old.leaseBroken() || old.linked() || !old.leased && !unchanged(old, content) {
		err := r.takeBack(old, copied)
		r.unsettled = r.unsettled || err != nil
		return overtaken, err
	}
	defer copied.close()
	copied.keepRights(old)
	copied.unlease()
	r.discard(r.place, copied.name)
	return replaced, nil
}

// swap exchanges the names of the copy and the file.
func swap(p place, copyName string) error {
	return retryEINTR(func() error {
		return unix.Renameat2(p.dir, copyName, p.dir, p.name, unix.RENAME_EXCHANGE)
	})
}

// shows reports whether name is that very inode, which must be held open, or its number may have been used again.
func (p place) shows(name string, inode unix.Stat_t) bool {
	var stat unix.Stat_t
	return unix.Fstatat(p.dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) == nil && stat.Dev == inode.Dev && stat.Ino == inode.Ino
}

// unchanged compares the content again; it serves where no lease vouches for it.
func unchanged(f *openFile, content []byte) bool {
	again, err := f.read()
	return err == nil && bytes.Equal(again, content)
}

// renameOver replaces the file where the exchange is not supported. An update that comes in the last microseconds is
// lost there; that is said once.
func (r *replacement) renameOver(old *openFile, content []byte, copied *fileCopy) (attempt, error) {
	r.noExchange.Do(func() {
		r.log.Warn("exchanging files is not supported here: waiting for quiet moments instead", "path", r.path)
	})
	if !r.shows(r.name, old.stat) || old.leaseBroken() || old.linked() || !unchanged(old, content) {
		r.keepOrRemove(copied)
		return overtaken, nil
	}
	defer copied.close()
	copied.keepRights(old)
	copied.unlease()
	if err := unix.Renameat(r.dir, copied.name, r.dir, r.name); err != nil {
		r.discard(r.place, copied.name)
		return nothingToDo, r.wrap("replace", err)
	}
	return replaced, nil
}

// takeBack undoes an exchange that displaced somebody's update: it puts back what was displaced, if our copy is still at
// the path. If it is not, whoever replaced it had seen the update or raced with it, and what is there stays. Should
// somebody replace our copy in the very instant of the putting back, theirs is put back in turn.
func (r *replacement) takeBack(old *openFile, copied *fileCopy) error {
	name, put := copied.name, copied
	for {
		displaced, err := r.protect(name, old)
		if err != nil {
			put.close()
			return r.wrap("find what was displaced from", err)
		}
		if !r.shows(r.name, put.stat) {
			displaced.close()
			put.close()
			return r.removed(unix.Unlinkat(r.dir, name, 0))
		}
		err = swap(r.place, name)
		switch {
		case errors.Is(err, unix.ENOENT): // removed in this instant: no more at the path
			displaced.close()
		case err != nil:
			displaced.close()
			put.close()
			return r.wrap("put back", err)
		case r.shows(name, put.stat):
			displaced.close()
			if put == copied {
				r.keepOrRemove(copied)
				return nil
			}
			put.close()
			return r.removed(unix.Unlinkat(r.dir, name, 0))
		default:
			put.close()
			put = displaced
		}
	}
}

func (r *replacement) removed(err error) error {
	if err != nil {
		return r.wrap("remove a copy of", err)
	}
	return nil
}

// protect holds a file that was displaced, so that its inode number is not given to another. Where it can, it takes a
// write lease: put back, the file may have to go again. It must not open old, whose lease it would run into.
func (p place) protect(name string, old *openFile) (*fileCopy, error) {
	k := &fileCopy{name: name}
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
		k.lease()
	}
	return k, nil
}

// keepOrRemove is for a copy that is beside the file: it is kept, lease and all, if somebody waits for it.
func (r *replacement) keepOrRemove(copied *fileCopy) {
	if copied.awaited() {
		r.waited = copied
		return
	}
	r.discard(r.place, copied.name)
	copied.close()
}

// letGo ends a replacement that did not come to its exchange: those who wait for a copy get to see what the path shows.
func (r *replacement) letGo() {
	if r.waited == nil {
		return
	}
	r.discard(r.place, r.waited.name)
	if current, err := r.open(r.place); err == nil {
		if content, err := current.read(); err == nil {
			r.waited.rewrite(content)
		}
		current.close()
	}
	r.waited.close()
}

// rescue looks after an inode that was at the path for an instant and is no more: whoever opened it for writing in that
// instant goes on there. had is what is in it, shown what the path shows instead. When the writer is done, its update is
// put through.
func (c *configFile) rescue(ctx context.Context, gone *openFile, had, shown []byte, m merge) error {
	for began := time.Now(); ; {
		err := gone.leaseRead()
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil // no leases here, so nothing was held up either
		}
		elapsed := time.Since(began)
		if elapsed > heldFor {
			return fmt.Errorf("%w: %s (a writer keeps an earlier copy open)", credential.ErrHeld, c.path)
		}
		if err := sleep(ctx, writerPause(elapsed)); err != nil {
			return err
		}
	}
	update, err := gone.read()
	gone.unlease()
	if err != nil {
		return c.wrap("read an earlier copy of", err)
	}
	if bytes.Equal(update, had) {
		return nil
	}
	_, err = c.replace(ctx, func(current []byte) ([]byte, error) {
		if !bytes.Equal(current, shown) {
			return current, nil // a later writer came; it would have overwritten the update without us, too
		}
		return m(update)
	})
	return err
}
