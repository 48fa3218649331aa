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
	// one. So whoever asks, this host makes fewer: of the same secret-id so many that there is one left for a right one.
	triesOfOne = 3
	triesOfAll = 4
	// quietTime is what lets Vault forget, and a minute more for clocks.
	quietTime = 16 * time.Minute
	// turnPatience bounds the wait for the login of another process of ours: longer than a login takes.
	turnPatience = requestTimeout + 5*time.Second
)

const refusedFile = "refused-secret-id.json"

// refusals remembers the logins in a row that Vault refused, or may have refused, by keyed digest of what was tried
// last, in a file: the next start must not try it again. An attempt is noted before it is made, as the process may be
// killed before its answer. The file is read each time, so that the daemon sees what another command of ours learnt. Not
// safe for concurrent use in one process.
type refusals struct {
	dir  string // empty: in memory only
	lock string // a file that every process of ours which makes the same login can open; empty: none
	key  []byte
	// make makes the directory, where it is not there, and returns the key that belongs to it; nil where it must be there.
	make func() (key []byte, err error)
	late bool // an attempt is noted only after it was made, and not accepted

	memory *refusal // what could not be written, or has nowhere to go
	before *refusal // what was noted before the attempt that is under way
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

func (r *refusals) digest(parts ...string) string {
	mac := hmac.New(sha256.New, r.key)
	for _, part := range parts {
		// The length in front keeps "ab"+"c" apart from "a"+"bc".
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write([]byte(part))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// turn waits until no other process of ours is between looking here and noting what came of it: five commands that are
// started together make one login. One that is stopped in it is not waited for longer than a login takes.
func (r *refusals) turn(ctx context.Context) (end func()) {
	file, err := os.Open(r.lock)
	if err != nil {
		return func() {} // where it cannot be read there is no login either
	}
	for began := time.Now(); time.Since(began) < turnPatience && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if !errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
			break
		}
	}
	if _, err := os.Stat(r.dir); err == nil && r.make != nil {
		// Another may have made it since: what it noted there can be told by its own key only.
		if key, err := r.make(); err == nil {
			r.key = key
		}
	}
	return func() { file.Close() }
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
	if !known.recent(now) || known.Tries < triesOfAll && (known.Digest != digest || known.Same < triesOfOne) {
		return time.Time{}, false
	}
	return known.Last.Add(quietTime), true
}

func (known *refusal) recent(now time.Time) bool {
	return known != nil && now.Sub(known.Last).Abs() < quietTime
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
	err := r.save(known)
	r.memory = nil
	if r.dir == "" || err != nil {
		r.memory = known
	}
	return err
}

func (r *refusals) save(known *refusal) error {
	if r.dir == "" {
		return nil
	}
	content, err := json.Marshal(known)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(r.dir, refusedFile), append(content, '\n'))
}

// forget is called after a login: nothing is refused any more.
func (r *refusals) forget() error {
	known, _ := r.load()
	r.memory = nil
	if r.dir == "" {
		return nil
	}
	if known != nil && !known.unknown.IsZero() { // they are not ours to forget
		if known.Digest == "" {
			return nil
		}
		return r.save(&refusal{unknown: known.unknown})
	}
	if err := os.Remove(filepath.Join(r.dir, refusedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the refused secret-id: %w", err)
	}
	return nil
}
