package sharedfile

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// lateFor is how long a displaced file is guarded. Whoever found it at the path and asks for it only now had to wait for
// a processor in the middle of open(): for some tens of milliseconds where ten programs share one, for up to 0.1 s where a
// control group has used up its share.
const lateFor = 250 * time.Millisecond

// maxLate is how many are guarded at a time: each takes two descriptors.
const maxLate = 32

// displacedUpdate begins the last part of the name of a file that holds somebody's update and takes a person.
const displacedUpdate = "update"

// displaced is a file that was at the path and is beside it, under the name of a copy.
type displaced struct {
	*File
	place
	file  *openFile
	name  string
	shown string // sum of what the path shows instead
}

// guard keeps the lease of a displaced file for a little longer, aside. Nobody gets to write it meanwhile: whoever comes late is
// let go on when it is at the path again. It takes over f.
func (r *replacement) guard(f *openFile, name string, shown []byte) {
	dir := -1
	if f.leased && len(r.late) < maxLate {
		dir, _ = unix.FcntlInt(uintptr(r.dir), unix.F_DUPFD_CLOEXEC, 0)
	}
	if dir < 0 {
		delete(r.late, name)
		r.discard(r.place, name)
		f.close()
		return
	}
	d := &displaced{File: r.File, place: r.place, file: f, name: name, shown: contentSum(shown)}
	d.place.dir = dir
	d.late[name] = true
	d.aside.Go(d.settle)
}

func (d *displaced) settle() {
	defer d.place.close()
	for began, waited := time.Now(), time.Duration(0); waited < lateFor && !d.file.leaseBroken(); waited = time.Since(began) {
		time.Sleep(min(max(waited/4, 200*time.Microsecond), 10*time.Millisecond))
	}
	for began := time.Now(); time.Since(began) < heldFor; time.Sleep(time.Millisecond) {
		done, err := d.putBack()
		if done {
			return
		}
		if err != nil && !errors.Is(err, credential.ErrHeld) {
			break
		}
	}
	d.keep()
}

// errOtherShown says that somebody has changed what the path shows.
var errOtherShown = errors.New("the path shows something else")

// putBack puts the file back to the path if somebody waits to write it, and removes it if not. It does not wait for others.
func (d *displaced) putBack() (done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.file.leaseBroken() {
		delete(d.late, d.name)
		d.discard(d.place, d.name)
		d.file.close()
		return true, nil
	}
	current, err := d.openQuiet(context.Background(), d.place, 0)
	if err != nil {
		return false, err
	}
	content, err := current.read()
	had, err2 := d.file.read()
	if err = errors.Join(err, err2); err == nil && contentSum(content) != d.shown {
		err = errOtherShown
	}
	if err != nil {
		current.close()
		return false, err
	}
	r := &replacement{File: d.File, place: d.place}
	state, err := r.exchange(current, content, had, &fileCopy{openFile: d.file, name: d.name, shown: true})
	if state == replaced { // what was displaced now has its name, and is guarded in turn
		return true, nil
	}
	current.close()
	if d.file.fd < 0 { // it was at the path, and somebody replaced it there
		delete(d.late, d.name)
		return true, nil
	}
	return false, err
}

// keep lets somebody go on who waits to write a file that cannot get back to the path. What they write is kept beside it, for a
// person to look at.
func (d *displaced) keep() {
	had, _ := d.file.read()
	d.file.unlease()
	written, err := d.open(place{dir: d.dir, name: d.name})
	d.file.close()
	changed := err != nil && !errors.Is(err, credential.ErrMissing) // somebody may have removed it
	if err == nil {
		defer written.close()
		for began := time.Now(); errors.Is(written.lease(unix.F_RDLCK), unix.EAGAIN) && time.Since(began) < heldFor; {
			time.Sleep(time.Millisecond)
		}
		content, err := written.read()
		changed = err != nil || !bytes.Equal(content, had)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.late, d.name)
	if !changed {
		d.discard(d.place, d.name)
		return
	}
	kept := copyPrefix(d.place.name) + displacedUpdate + rand.Text()[:8]
	if unix.Renameat2(d.dir, d.name, d.dir, kept, unix.RENAME_NOREPLACE) != nil {
		kept = d.name
	}
	d.log.Error("another program wrote the configuration file while it was being replaced; its update is beside it: merge it, then remove that file",
		"path", filepath.Join(filepath.Dir(d.path), kept))
}

// release ends a replacement that did not come to its exchange: those who wait for a copy get to see what the path shows.
func (r *replacement) release() {
	k := r.takenBack
	if k == nil {
		return
	}
	var shown []byte
	current, err := r.open(r.place)
	if err == nil {
		shown, err = current.read()
		current.close()
	}
	if err == nil {
		err = r.nameCopy(r.place, k, copyPrefix(r.name)+unfinished)
	}
	if err == nil {
		k.rewrite(shown) // if this fails, it is not what the path shows, and so it does not get there
	}
	r.guard(k.openFile, k.name, shown)
}
