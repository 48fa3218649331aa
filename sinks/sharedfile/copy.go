package sharedfile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"
)

// copyPrefix and the names made from it start with a dot, so that nothing that reads conf/config-*.xml takes them.
func copyPrefix(name string) string { return "." + name + ".credsync-" }

const (
	unfinished = "unfinished" // nobody but us has seen it
	update     = "update"     // it may hold somebody's update, which takes a person
)

// copyName is the name of a whole copy. It tells what was read and what is written, so that after a crash the copy can be told from
// somebody's update that was displaced to that name. Nobody can foretell it.
func copyName(name string, from, next []byte) string {
	return copyPrefix(name) + contentSum(from) + "-" + contentSum(next) + "-" + rand.Text()[:8]
}

func draftName(name string) string { return copyPrefix(name) + unfinished + "-" + rand.Text()[:8] }

func updateName(name string) string { return copyPrefix(name) + update + "-" + rand.Text()[:8] }

// contentSum identifies a content among the few that a file has had.
func contentSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// newCopy writes next to a file beside old, with the rights of old, and takes a write lease on it. Where the file system and /proc allow
// it, the file has no name until it is whole: that is faster, no watch of the directory hears of it, and a crash leaves nothing.
func (p place) newCopy(old *openFile, content, next []byte) (*openFile, error) {
	copied, err := p.tryCopy(p.openUnnamed, old, content, next)
	if isForbidden(err) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		copied, err = p.tryCopy(p.openDraft, old, content, next)
	}
	if err != nil {
		return nil, p.failed("create a copy beside", err)
	}
	copied.lease(unix.F_WRLCK) // there is none where leases are not supported; tryQuiet has said so
	return copied, nil
}

func (p place) tryCopy(open func() (*openFile, error), old *openFile, content, next []byte) (*openFile, error) {
	copied, err := open()
	if err != nil {
		return nil, err
	}
	if err := p.fill(copied, old, content, next); err != nil {
		p.discard(copied)
		return nil, err
	}
	return copied, nil
}

func (p place) openUnnamed() (*openFile, error) {
	f, err := p.openAt(".", unix.O_RDWR|unix.O_TMPFILE)
	if err == nil {
		f.name = ""
	}
	return f, err
}

func (p place) openDraft() (*openFile, error) {
	f, err := p.openAt(draftName(p.name), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		p.unsettled = true // it may have been created all the same
	}
	return f, err
}

// fill gives the draft f its content, its rights, and its telling name only when it is whole and on disk: a file of such a name is
// never torn.
func (p place) fill(f, old *openFile, content, next []byte) error {
	if err := f.write(next); err != nil {
		return err
	}
	rights, err := old.rights()
	if err != nil {
		return err
	}
	if err := f.takeRights(rights); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return p.rename(f, copyName(p.name, content, next))
}

// discard closes f and removes it unless it is at the path. Should that fail, it is a stray, which the next replacement deals with, or
// the next start.
func (p place) discard(f *openFile) {
	if f.name != "" && f.name != p.name && p.remove(f.name) != nil {
		p.unsettled = true
	}
	f.Close()
}
