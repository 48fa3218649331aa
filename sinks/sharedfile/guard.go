package sharedfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// lateFor is how long a displaced file is guarded. An open() finds the inode first and looks for leases then. In between, its process
// may have to wait for a processor: for some tens of milliseconds where ten programs share one, for up to 0.1 s where a control
// group has used up its share.
const lateFor = 250 * time.Millisecond

// maxGuarded is how many are guarded at a time: each takes two descriptors. What is replaced beyond that is not guarded, as a revert does
// not wait for it; copies that were taken back always are, and nothing is tried again while there are twice as many.
const maxGuarded = 32

// displaced is a file that was at the path and is beside it: what was replaced, with a read lease, or a copy of ours that was taken
// back, with a write lease.
type displaced struct {
	place
	file  *openFile
	shown string // sum of what the path shows instead of what was replaced
}

// guard keeps the lease of a displaced file for a little longer, in the background. Nobody gets to open it meanwhile: whoever comes
// late is let go on when it is at the path again. It takes over f.
func (p place) guard(f *openFile, shown []byte) {
	if f.leased == unix.F_UNLCK || f.leased == unix.F_RDLCK && len(p.guarded) >= maxGuarded {
		p.discard(f)
		return
	}
	dir, err := unix.FcntlInt(p.dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.discard(f)
		return
	}
	d := &displaced{place: p, file: f, shown: contentSum(shown)}
	d.dir = os.NewFile(uintptr(dir), p.dir.Name())
	p.guarded[f] = true
	p.guards.Go(d.settle)
}

func (d *displaced) settle() {
	defer d.dir.Close()
	for began := time.Now(); time.Since(began) < lateFor+heldFor; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) < lateFor && !d.file.leaseBroken() {
			continue
		}
		done, err := d.putBack()
		if done {
			return
		}
		if err != nil {
			break
		}
	}
	d.keep()
}

// putBack puts the file back to the path if somebody waits to open it, and removes it if not. It is not done while somebody
// writes the path, or removed it.
func (d *displaced) putBack() (done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.file.leaseBroken() {
		d.end()
		return true, nil
	}
	current, err := d.tryQuiet()
	if errors.Is(err, credential.ErrMissing) {
		return false, nil
	}
	if current == nil {
		return false, err
	}
	defer d.closeUnguarded(current)
	content, err := current.read()
	had, err2 := d.file.read()
	if err := errors.Join(err, err2); err != nil {
		return false, err
	}
	if d.file.leased == unix.F_WRLCK { // our copy: nobody has read it, and nobody gets to read what was taken back
		if err = d.rename(d.file, updateName(d.name)); err == nil {
			if err = d.fill(d.file, current, content, content); err != nil {
				d.file.write(had) // whoever waits is not to find half of it
			}
		}
		had = content
	} else if contentSum(content) != d.shown {
		err = fmt.Errorf("%s was written again", d.path)
	}
	if err != nil {
		return false, err
	}
	outcome, err := d.exchange(current, d.file, content, had)
	if outcome == overtaken || outcome == takenBack {
		return false, err
	}
	delete(d.guarded, d.file)
	d.letGo(d.file, outcome)
	return true, nil
}

func (d *displaced) end() {
	delete(d.guarded, d.file)
	d.discard(d.file)
}

// keep lets somebody go on who waits to open a file that cannot get back to the path. What they write is kept beside it, for a
// person to look at.
func (d *displaced) keep() {
	had, _ := d.file.read()
	d.mu.Lock()
	d.rename(d.file, updateName(d.name)) // if this fails, it is kept under the name it has
	d.mu.Unlock()
	d.file.Close() // and so its lease is gone
	kept := d.place
	kept.name = d.file.name
	ctx, cancel := context.WithTimeout(context.Background(), heldFor)
	defer cancel()
	written, err := kept.openQuiet(ctx)
	changed := err != nil && !errors.Is(err, credential.ErrMissing) // somebody may have removed it
	if err == nil {
		defer written.Close()
		content, err := written.read()
		changed = err != nil || !bytes.Equal(content, had)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !changed {
		d.end()
		return
	}
	delete(d.guarded, d.file)
	d.log.Error("another program wrote the configuration file while it was being replaced; its update is beside it: merge it, then remove that file",
		"path", d.beside(kept.name))
}
