package sources

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
	// one. So whoever asks, this host makes fewer in a row: of the same secret-id so many at once that there is one left for a
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

const (
	refusedFile  = "refused-secret-id.json"
	acceptedFile = "accepted-secret-id.json"
)

// refusals remembers, by keyed digest and in files, which secret-id Vault accepted last, and the logins in a row that it
// refused, or may have refused: the next start must not try those again. An attempt with a secret-id that was never accepted
// is noted before it is made, as the process may be killed before its answer. The files are read each time, so that the daemon
// sees what another command of ours learnt. Not safe for concurrent use in one process.
type refusals struct {
	dir  string // empty: in memory only
	lock string // locked where dir is not there yet: a file that every process of ours which makes the same login can open
	key  []byte
	// make makes the directory, where it is not there, and returns the key that belongs to it; nil where it must be there.
	make func() (key []byte, err error)
	late bool // an attempt is noted only after it was made, and not accepted

	memory *refusal // what could not be written, or has nowhere to go
	before *refusal // what was noted before the attempt that is under way
	proven string   // the digest that was accepted, where that could not be written
}

// acceptance is the secret-id that Vault accepted last.
type acceptance struct {
	Digest string    `json:"digest"`
	At     time.Time `json:"at"` // for the first time in a row

	unknown durable.Unknown
}

type refusal struct {
	Digest string    `json:"digest"` // of what was tried last
	Until  time.Time `json:"until"`  // to be left alone; zero: nobody knows whether it was refused
	Tries  int       `json:"tries"`  // in a row, with less than quietTime between them
	Same   int       `json:"same"`   // those of them with Digest
	Last   time.Time `json:"last"`

	unknown durable.Unknown
}

// UnmarshalJSON and MarshalJSON keep the fields of a newer release.
func (known *refusal) UnmarshalJSON(object []byte) (err error) {
	type plain refusal
	known.unknown, err = durable.Decode(object, (*plain)(known))
	return err
}

func (known *refusal) MarshalJSON() ([]byte, error) {
	type plain refusal
	return known.unknown.Encode((*plain)(known))
}

// UnmarshalJSON and MarshalJSON keep the fields of a newer release.
func (known *acceptance) UnmarshalJSON(object []byte) (err error) {
	type plain acceptance
	known.unknown, err = durable.Decode(object, (*plain)(known))
	return err
}

func (known *acceptance) MarshalJSON() ([]byte, error) {
	type plain acceptance
	return known.unknown.Encode((*plain)(known))
}

func (r *refusals) digest(parts ...string) string {
	mac := hmac.New(sha256.New, r.key)
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
	if _, err := os.Stat(r.dir); err != nil && r.make != nil && !r.late {
		r.make() // who notes something tells why it cannot be made
	}
	// A directory that only this user may open cannot be locked by others.
	file, err := os.OpenFile(r.dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		file, _, err = regularfile.Open(r.lock)
	}
	if err != nil {
		return func() {}, nil // where neither can be read there is no login either
	}
	for began := time.Now(); errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK); {
		if ctx.Err() != nil {
			file.Close()
			return nil, fmt.Errorf("waiting for another process: %w", ctx.Err())
		}
		if time.Since(began) > turnLimit {
			err = fmt.Errorf("%w on %s: a campaign-credsync that logs in, or was stopped while it did; lslocks shows it", errOthersTurn, file.Name())
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := os.Stat(r.dir); err == nil && r.make != nil {
		// Another may have made it since: what it noted there can be told by its own key only.
		if key, err := r.make(); err == nil {
			r.key = key
		}
	}
	return func() { file.Close() }, err
}

// refused tells whether digest was refused, and how long it is to be left alone.
func (r *refusals) refused(digest string, now time.Time) (time.Time, bool) {
	known, _ := r.load()
	// A time beyond what we write comes from a clock that was wrong then or is wrong now.
	if known != nil && known.Digest == digest && now.Before(known.Until) && known.Until.Before(now.Add(2*refusedFor)) {
		return known.Until, true
	}
	return time.Time{}, false
}

// enough tells whether so much was tried in a row that not even a person's word may try digest, and until when.
func (r *refusals) enough(digest string, now time.Time) (time.Time, bool) {
	known, _ := r.load()
	if !known.recent(now) {
		return time.Time{}, false
	}
	atOnce := triesAtOnce
	if known.Until.IsZero() {
		atOnce = unansweredTries
	}
	until := known.Last
	switch {
	case known.Tries >= triesOfAll:
		until = until.Add(quietTime)
	case known.Digest == digest && known.Same >= atOnce:
		until = until.Add(tryInterval)
	}
	return until, now.Before(until)
}

func (known *refusal) recent(now time.Time) bool {
	return known != nil && now.Sub(known.Last).Abs() < quietTime
}

// accepted reports whether the last login with digest that was answered was accepted. What is then tried with it, and
// not answered, counts for nothing.
func (r *refusals) accepted(digest string) bool {
	known, _ := r.load()
	return r.lastAccepted().Digest == digest && (known == nil || known.Digest != digest || known.Until.IsZero())
}

func (r *refusals) lastAccepted() *acceptance {
	known := &acceptance{}
	if r.dir != "" {
		content, err := regularfile.Read(filepath.Join(r.dir, acceptedFile), maxLine)
		if err != nil || json.Unmarshal(content, known) != nil {
			known = &acceptance{}
		}
	}
	if r.proven != "" {
		known.Digest = r.proven
	}
	return known
}

// accept notes that a login with digest was accepted.
func (r *refusals) accept(digest string, now time.Time) {
	known := r.lastAccepted()
	if known.Digest == digest && r.proven == "" {
		return
	}
	r.proven = digest
	known.Digest, known.At = digest, now.UTC().Truncate(time.Second)
	if r.dir != "" && !r.late && r.save(acceptedFile, known) == nil {
		r.proven = ""
	}
}

// unaccept notes that the secret-id is not accepted any more.
func (r *refusals) unaccept(known *acceptance) {
	r.proven = ""
	if known.unknown.IsZero() {
		r.remove(acceptedFile)
	} else {
		r.save(acceptedFile, &acceptance{unknown: known.unknown})
	}
}

// load returns what the file says, or what is in memory. That is nil for a file that is not there or was cut off, which
// costs one more login, no harm. One that is there and cannot be read is an error: it may say no.
func (r *refusals) load() (*refusal, error) {
	if r.dir == "" {
		return r.memory, nil
	}
	content, err := regularfile.Read(filepath.Join(r.dir, refusedFile), maxLine)
	if errors.Is(err, fs.ErrNotExist) {
		return r.memory, nil
	}
	if err != nil {
		return nil, err
	}
	known := &refusal{}
	if json.Unmarshal(content, known) != nil {
		return r.memory, nil
	}
	return known, nil
}

// begin notes that digest is about to be tried. Its error says that this host could not know afterwards, so that it must
// not be tried. A directory that is not there yet is none: it is made when there is something to remember.
func (r *refusals) begin(digest string, now time.Time) error {
	known, err := r.load()
	if err != nil || r.late {
		return err
	}
	return r.note(known, digest, now)
}

// cut notes that digest was tried, and the answer not waited for. What was begun is noted already.
func (r *refusals) cut(digest string, now time.Time) error {
	known, err := r.load()
	if err != nil || !r.late {
		return err
	}
	return r.note(known, digest, now)
}

func (r *refusals) note(known *refusal, digest string, now time.Time) error {
	r.before = known
	memory := r.memory
	err := r.remember(known.next(digest, now))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.memory = memory // it is not going to be tried
	return err
}

// next is what is known when digest was tried once more.
func (known *refusal) next(digest string, now time.Time) *refusal {
	next := &refusal{Digest: digest, Tries: 1, Same: 1, Last: now.UTC()}
	if known != nil {
		next.unknown = known.unknown
	}
	if known.recent(now) {
		next.Tries = known.Tries + 1
		if known.Digest == digest {
			next.Same = known.Same + 1
		}
	}
	return next
}

// unrefused takes back what begin noted: the attempt failed for another reason.
func (r *refusals) unrefused() error {
	if r.late {
		return nil
	}
	if r.before == nil {
		return r.forget()
	}
	return r.remember(r.before)
}

// add remembers that what the parts name was refused, in memory in any case. Its error says that the file could not be
// written.
func (r *refusals) add(now time.Time, begun bool, parts ...string) (time.Time, error) {
	digest := r.digest(parts...)
	if accepted := r.lastAccepted(); accepted.Digest == digest {
		defer r.unaccept(accepted) // once the refusal is noted, which outweighs it
	}
	known, _ := r.load()
	if !begun || r.late || known == nil {
		known = known.next(digest, now)
	}
	next := *known
	next.Last = now.UTC()
	next.Until = now.Add(time.Duration(float64(refusedFor) * jitter())).UTC().Truncate(time.Second)
	err := r.remember(&next)
	if !errors.Is(err, fs.ErrNotExist) || r.make == nil {
		return next.Until, err
	}
	if r.key, err = r.make(); err != nil {
		return next.Until, err
	}
	next.Digest = r.digest(parts...)
	return next.Until, r.remember(&next)
}

// remember keeps known in the file, else in memory.
func (r *refusals) remember(known *refusal) error {
	err := r.save(refusedFile, known)
	r.memory = nil
	if r.dir == "" || err != nil {
		r.memory = known
	}
	return err
}

func (r *refusals) save(name string, record any) error {
	if r.dir == "" {
		return nil
	}
	content, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(r.dir, name), append(content, '\n'))
}

// forget is called after a login: nothing is refused any more.
func (r *refusals) forget() (err error) {
	known, _ := r.load()
	r.memory = nil
	switch {
	case known == nil || known.unknown.IsZero():
		err = r.remove(refusedFile)
	case known.Digest != "": // the rest is not ours to forget
		err = r.save(refusedFile, &refusal{unknown: known.unknown})
	}
	if err != nil {
		return fmt.Errorf("forget the refused secret-id: %w", err)
	}
	return nil
}

func (r *refusals) remove(name string) error {
	if r.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(r.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
