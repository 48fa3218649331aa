package nlserver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

// The note of a module is a file in the state directory. Its first line is that of /proc of the process that restarts the module, or
// "ended" when that has ended. Its time is that of the last restart; an empty note tells of none. The second line is there where the
// restarts before this one have failed. An older release reads the first line alone.

// failures are the restarts of a module that failed in a row.
type failures struct {
	Count  int       `json:"failures"`
	LastAt time.Time `json:"last_at"`          // when the last one began
	Text   string    `json:"reason,omitempty"` // why it failed, redacted
}

// line is the second line of a note.
func (f failures) line() string {
	if f.Count == 0 {
		return ""
	}
	line, _ := json.Marshal(f) // of numbers and strings, which never fails
	return string(line) + "\n"
}

func (b *Binary) noteFile(module string) string {
	return filepath.Join(b.cfg.StateDir, module+".restart")
}

const endedLine = "ended\n"

// claim opens the note of a module for a process that is about to restart it, and holds its lock until it is closed. Of two processes,
// such as a daemon and the activation service, one gets it, and none while a restart runs that outlived its own. Where the disk is full,
// or something else is there, there is no note, and it is nil, which may be closed.
func (b *Binary) claim(module string) (*os.File, error) {
	note, err := openNote(b.noteFile(module), os.O_CREATE)
	if err != nil {
		b.cfg.Logger.Warn("a restart is not on record, so another daemon may begin a second one", "step", "restart "+module,
			"reason", err, "remedy", "see whether the disk is full; remove what is there if it is no regular file")
		return nil, nil
	}
	err = unix.Flock(int(note.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK || err == nil && b.outlived(module) {
		err = errBusy(module)
	} else if err == nil {
		err = b.tooSoon(module)
	}
	if err != nil {
		note.Close()
		return nil, err
	}
	return note, nil
}

// openNote opens a note for writing. It waits for nothing, and follows no link: what is not ours must not change.
func openNote(path string, create int) (*os.File, error) {
	note, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|create, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := note.Stat(); err != nil || !info.Mode().IsRegular() {
		note.Close()
		return nil, cmp.Or(err, fmt.Errorf("%s is not a regular file", path))
	}
	return note, nil
}

// maxNote is above any note of ours, in bytes.
const maxNote = 64 << 10

// readNote returns what is in the note of a module; nothing where there is no note.
func (b *Binary) readNote(module string) []byte {
	note, err := regularfile.Read(b.noteFile(module), maxNote)
	if err != nil {
		return nil
	}
	return note
}

// endNote notes that a restart has ended. A kill in between leaves a rest of the old note behind the new one, which nobody reads.
func endNote(note *os.File, f failures) {
	text := endedLine + f.line()
	_, _ = note.WriteAt([]byte(text), 0) // these do nothing where there is none
	_ = note.Truncate(int64(len(text)))
	note.Close()
}

// lastFailed is the last restart of a module as an earlier process left it, if it failed; else nil. One whose end is not on record, as
// that process was killed, counts as failed: it may have taken the module down.
func (b *Binary) lastFailed(module string) *restart {
	note := b.readNote(module)
	info, err := os.Stat(b.noteFile(module))
	if err != nil || len(note) == 0 {
		return nil
	}
	first, second, _ := bytes.Cut(note, []byte("\n"))
	second, _, _ = bytes.Cut(second, []byte("\n"))
	var f failures
	if json.Unmarshal(second, &f) != nil {
		f = failures{}
	}
	if string(first)+"\n" != endedLine {
		f = failures{f.Count + 1, info.ModTime(), "how it ended is not known, as the daemon was stopped or killed before"}
	}
	if f.Count < 1 {
		return nil
	}
	if now := time.Now(); f.LastAt.After(now) { // by a clock that was set back
		f.LastAt = now
	}
	ended := make(chan struct{})
	close(ended)
	return &restart{began: f.LastAt, before: f.Count - 1, ended: ended, err: errors.New(f.Text), text: f.Text}
}

// forgiveNote takes the failures out of a module's note, and keeps its time. Where that fails they count again for a later process.
func (b *Binary) forgiveNote(module string) {
	note, err := openNote(b.noteFile(module), 0)
	if err != nil {
		return
	}
	defer note.Close()
	info, err := note.Stat()
	if err != nil || unix.Flock(int(note.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || b.outlived(module) { // whoever runs writes it anew
		return
	}
	if _, err := note.WriteAt([]byte(endedLine), 0); err == nil {
		_ = note.Truncate(int64(len(endedLine)))
	}
	_ = os.Chtimes(note.Name(), time.Time{}, info.ModTime())
}

// tooSoonError says that a module was restarted a short time ago.
type tooSoonError struct {
	module string
	until  time.Time
}

func (e tooSoonError) Error() string {
	return fmt.Sprintf("nlserver restart %s: not before %s, by campaign.activate.min_interval", e.module, e.until.UTC().Format(time.RFC3339))
}

// RetryAt tells when it is restarted.
func (e tooSoonError) RetryAt() time.Time { return e.until }

// tooSoon is an error if the last restart of a module, whoever did it, is not MinInterval ago.
func (b *Binary) tooSoon(module string) error {
	info, err := os.Stat(b.noteFile(module))
	if err != nil || info.Size() == 0 {
		return nil
	}
	last, now := info.ModTime(), time.Now()
	if now.Sub(last).Abs() >= b.cfg.MinInterval { // one in the future is of a clock that was set back
		return nil
	}
	if last.After(now) {
		last = now
	}
	return credential.Because(credential.ReasonActivationWaits, tooSoonError{module, last.Add(b.cfg.MinInterval)})
}

// outlived reports whether a restart of a module that another daemon began still runs.
func (b *Binary) outlived(module string) bool {
	first, _, _ := bytes.Cut(b.readNote(module), []byte("\n"))
	pid, _, _ := strings.Cut(string(first), " ")
	now, _ := os.ReadFile("/proc/" + pid + "/stat")
	began := beganOf(first)
	return began != "" && began == beganOf(now)
}

// beganOf tells from a line of /proc when a process began, by which it differs from a later one of the same number; "" if it has ended.
func beganOf(stat []byte) string {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // after the name, which may hold anything
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
