package login

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
)

const (
	// refusedFor is how long a refused secret-id is left alone, jittered.
	refusedFor = time.Hour
	// Vault locks a role after five refused logins, counted over all hosts, between which it never had 15 minutes without
	// one. So this host makes fewer in a row, whoever asks: of the same secret-id so many at once that there is one left for a
	// right one, and of one that nobody has answered for so few that it may still be tried soon: it may be the right one.
	triesOfAll      = 4
	triesAtOnce     = 3
	unansweredTries = 2
	// quietTime is what lets Vault forget, and a minute more for clocks.
	quietTime = 16 * time.Minute
	// tryInterval spreads the tries that are left when those at once are spent.
	tryInterval = quietTime / triesOfAll
	// turnLimit bounds the wait for the login of another process of ours. One that is stopped in it must not hold up a daemon.
	turnLimit = 5 * time.Second
)

// The files of refusals. Each holds a note.
const (
	refusedFile  = "refused-secret-id.json"
	acceptedFile = "accepted-secret-id.json"
)

// refusals remembers, by keyed digest and in files, which secret-id Vault accepted last, and the logins in a row that it
// refused, or may have refused: the next start must not try those again. An attempt with a secret-id that was not accepted
// last is noted before it is made, as the process may be killed before its answer. The files are read each time, so that the
// daemon sees what another command of ours learnt. Not safe for concurrent use in one process.
type refusals struct {
	State
	lock string // locked where StateDir is not there yet: a file that every process of ours which makes the same login can open

	before *note // what was noted before the attempt that is under way
}

// note is what refusedFile and acceptedFile hold.
type note struct {
	Digest string    `json:"digest,omitempty"` // of what was tried, or accepted, last
	At     time.Time `json:"at,omitzero"`      // when it was accepted, for the first time in a row

	Until time.Time `json:"until,omitzero"`  // to be left alone; zero: nobody knows whether it was refused
	Tries int       `json:"tries,omitempty"` // in a row, with less than quietTime between them
	Same  int       `json:"same,omitempty"`  // those of them with Digest
	Last  time.Time `json:"last,omitzero"`

	unknown durable.Unknown
}

// UnmarshalJSON and MarshalJSON keep the fields of a newer release.
func (n *note) UnmarshalJSON(object []byte) (err error) {
	type plain note
	n.unknown, err = durable.Decode(object, (*plain)(n))
	return err
}

func (n *note) MarshalJSON() ([]byte, error) {
	type plain note
	return n.unknown.Encode((*plain)(n))
}

// verdict is what is known of a secret-id before it is tried.
type verdict int

const (
	unknown       verdict = iota
	wasAccepted           // by the last login with it that was answered: what is not answered counts for nothing
	wasRefused            // and is to be left alone
	triedTooOften         // so that not even an operator's word may try it
)

// judge tells what is known of digest, and until when it must be left alone.
func (r *refusals) judge(digest string) (verdict, time.Time) {
	now := time.Now()
	known, _ := r.load(refusedFile)
	refused := known.Digest == digest && !known.Until.IsZero()
	if accepted, _ := r.load(acceptedFile); accepted.Digest == digest && !refused {
		return wasAccepted, time.Time{}
	}
	if until := known.exhausted(digest); now.Before(until) && known.recent(now) {
		return triedTooOften, until
	}
	// A time beyond what we write comes from a clock that was wrong then or is wrong now.
	if refused && now.Before(known.Until) && known.Until.Before(now.Add(2*refusedFor)) {
		return wasRefused, known.Until
	}
	return unknown, time.Time{}
}

// exhausted returns until when digest must not be tried, as too much was tried in a row.
func (n *note) exhausted(digest string) time.Time {
	atOnce := triesAtOnce
	if n.Until.IsZero() {
		atOnce = unansweredTries
	}
	switch {
	case n.Tries >= triesOfAll:
		return n.Last.Add(quietTime)
	case n.Digest == digest && n.Same >= atOnce:
		return n.Last.Add(tryInterval)
	}
	return time.Time{}
}

func (n *note) recent(now time.Time) bool { return now.Sub(n.Last).Abs() < quietTime }

// tried is what is known when digest was tried once more.
func (n *note) tried(digest string) *note {
	now := time.Now().UTC()
	next := &note{Digest: digest, Tries: 1, Same: 1, Last: now, unknown: n.unknown}
	if n.recent(now) {
		next.Tries = n.Tries + 1
		if n.Digest == digest {
			next.Same = n.Same + 1
		}
	}
	return next
}

// begin notes that digest is about to be tried. Its error says that this host could not know afterwards, so that it must
// not be tried.
func (r *refusals) begin(digest string) error {
	known, err := r.load(refusedFile)
	if err != nil || r.OnlyReads {
		return err
	}
	r.before = known
	return r.save(refusedFile, known.tried(digest))
}

// undo takes back what begin noted: the attempt failed for another reason.
func (r *refusals) undo() error {
	switch {
	case r.OnlyReads:
		return nil
	case r.before.Digest == "":
		return r.clear(refusedFile)
	}
	return r.save(refusedFile, r.before)
}

// cut notes that digest was tried, and the answer not waited for. What was begun is noted already.
func (r *refusals) cut(digest string) error {
	known, err := r.load(refusedFile)
	if err != nil || !r.OnlyReads {
		return err
	}
	return r.save(refusedFile, known.tried(digest))
}

// refuse remembers that a secret-id was refused and is to be left alone until then. noted says that begin has noted the
// attempt; digest is asked when there is a directory to remember it in, and its key.
func (r *refusals) refuse(noted bool, digest func() string, until time.Time) error {
	if r.OnlyReads && r.MakeStateDir != nil {
		if key, err := r.MakeStateDir(); err == nil {
			r.DigestKey = key
		}
	}
	known, _ := r.load(refusedFile)
	if !noted || r.OnlyReads || known.Digest == "" {
		known = known.tried(digest())
	}
	known.Last = time.Now().UTC()
	known.Until = until.UTC().Truncate(time.Second)
	err := r.save(refusedFile, known)
	if accepted, _ := r.load(acceptedFile); accepted.Digest == known.Digest {
		r.clear(acceptedFile) // the refusal outweighs it
	}
	return err
}

// accept notes that a login with digest was accepted. Where it cannot be written, the next attempt is noted as any other.
func (r *refusals) accept(digest string) {
	if known, _ := r.load(acceptedFile); known.Digest != digest && !r.OnlyReads {
		r.save(acceptedFile, &note{Digest: digest, At: time.Now().UTC().Truncate(time.Second), unknown: known.unknown})
	}
}

// load returns what a file says. One that is not there or was cut off says nothing: that costs one more login. One that is
// there and cannot be read is an error: it may say no.
func (r *refusals) load(file string) (*note, error) {
	content, err := regularfile.Read(filepath.Join(r.StateDir, file), maxLine)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &note{}, err
	}
	known := &note{}
	if err != nil || json.Unmarshal(content, known) != nil {
		return &note{}, nil
	}
	return known, nil
}

func (r *refusals) save(file string, n *note) error {
	content, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(r.StateDir, file), append(content, '\n'))
}

// clear forgets what a file says, apart from what is not ours to forget.
func (r *refusals) clear(file string) error {
	known, _ := r.load(file)
	switch {
	case known.unknown.IsZero():
		return removeFile(filepath.Join(r.StateDir, file))
	case known.Digest != "":
		return r.save(file, &note{unknown: known.unknown})
	}
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// digest is keyed, so that it tells nothing to who has not the key.
func (r *refusals) digest(parts ...string) string {
	mac := hmac.New(sha256.New, r.DigestKey)
	for _, part := range parts {
		// The length in front keeps "ab"+"c" apart from "a"+"bc".
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write([]byte(part))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

var errOthersTurn = errors.New("another process holds the lock")

// turn waits until no other process of ours is between looking here and noting what came of it: five commands that are
// started together make one login. With the error errOthersTurn one of them was not done in turnLimit; end is to be called.
func (r *refusals) turn(ctx context.Context) (end func(), err error) {
	if _, err := os.Stat(r.StateDir); err != nil && r.MakeStateDir != nil && !r.OnlyReads {
		r.MakeStateDir() // who notes something tells why it cannot be made
	}
	// A directory that only this user may open cannot be locked by others.
	file, err := os.OpenFile(r.StateDir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		file, _, err = regularfile.Open(r.lock)
	}
	if err != nil {
		return func() {}, nil // where neither can be read there is no login either
	}
	for began := time.Now(); errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK); {
		if ctx.Err() != nil {
			file.Close()
			return func() {}, fmt.Errorf("waiting for another process: %w", ctx.Err())
		}
		if time.Since(began) > turnLimit {
			err = fmt.Errorf("%w on %s: a campaign-credsync that logs in, or was stopped while it did; lslocks shows it", errOthersTurn, file.Name())
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := os.Stat(r.StateDir); err == nil && r.MakeStateDir != nil {
		// Another may have made it since: what it noted there can be told by its own key only.
		if key, err := r.MakeStateDir(); err == nil {
			r.DigestKey = key
		}
	}
	return func() { file.Close() }, err
}
