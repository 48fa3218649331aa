package sinks

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

// lateFor is how long a displaced file is looked after. Whoever found it at the path and asks for it only now had to wait for
// a processor in the middle of open(): for some tens of milliseconds where ten programs share one, for up to 0.1 s where a
// control group has used up its share.
const lateFor = 250 * time.Millisecond

// maxLate is how many are looked after at a time: each takes two descriptors.
const maxLate = 32

// displacedUpdate begins the last part of the name of a file that holds somebody's update and takes a person.
const displacedUpdate = "update"

// lookAfter keeps the lease of a file that is beside the path, under the name of a copy, for a little longer, aside. Nobody
// gets to write it meanwhile: whoever comes late is let go on when it is at the path again. shown is what the path shows
// instead. It takes over f.
func (r *replacement) lookAfter(f *openFile, name string, shown []byte) {
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
	c, p := r.configFile, r.place
	p.dir = dir
	if c.late == nil {
		c.late = map[string]bool{}
	}
	c.late[name] = true
	c.aside.Go(func() {
		defer p.close()
		sum := contentSum(shown)
		shown = nil // it may be large
		for began, waited := time.Now(), time.Duration(0); waited < lateFor && !f.leaseBroken(); waited = time.Since(began) {
			time.Sleep(min(max(waited/4, 200*time.Microsecond), 10*time.Millisecond))
		}
		if !c.bringBack(p, f, name, sum) {
			c.keepUpdate(p, f, name)
		}
	})
}

// bringBack puts a displaced file back to the path if somebody waits to write it, and removes it if not. It fails where the
// path shows something else by now.
func (c *configFile) bringBack(p place, f *openFile, name, shown string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.leaseBroken() {
		delete(c.late, name)
		c.discard(p, name)
		f.close()
		return true
	}
	r, back := &replacement{configFile: c, place: p}, &fileCopy{openFile: f, name: name, shown: true}
	for began := time.Now(); time.Since(began) < heldFor; {
		current, err := c.openQuiet(context.Background(), p)
		if err != nil {
			return false
		}
		content, err := current.read()
		had, err2 := f.read()
		if err != nil || err2 != nil || contentSum(content) != shown {
			current.close()
			return false
		}
		state, err := r.exchange(current, content, had, back)
		if state == replaced { // what was displaced now has its name, and is looked after in turn
			return true
		}
		current.close()
		if f.fd < 0 { // it was at the path, and somebody replaced it there
			delete(c.late, name)
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}

// keepUpdate lets somebody go on who waits to write a file that cannot get back to the path. What they write is kept beside
// it, for a person to look at.
func (c *configFile) keepUpdate(p place, f *openFile, name string) {
	had, _ := f.read()
	f.unlease()
	written, err := c.open(place{dir: p.dir, name: name})
	f.close()
	changed := err != nil && !errors.Is(err, credential.ErrMissing) // somebody may have removed it
	if err == nil {
		defer written.close()
		for began := time.Now(); errors.Is(written.lease(unix.F_RDLCK), unix.EAGAIN) && time.Since(began) < heldFor; {
			time.Sleep(time.Millisecond)
		}
		content, err := written.read()
		changed = err != nil || !bytes.Equal(content, had)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.late, name)
	if !changed {
		c.discard(p, name)
		return
	}
	kept := copyPrefix(p.name) + displacedUpdate + rand.Text()[:8]
	if unix.Renameat2(p.dir, name, p.dir, kept, unix.RENAME_NOREPLACE) != nil {
		kept = name
	}
	c.log.Error("somebody wrote the configuration file while it was replaced: the update is beside it, put it in and remove that file",
		"path", filepath.Join(filepath.Dir(c.path), kept))
}

// letGo ends a replacement that did not come to its exchange: those who wait for a copy get to see what the path shows.
func (r *replacement) letGo() {
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
	r.lookAfter(k.openFile, k.name, shown)
}
