package login

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
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
	// one. So this host makes fewer in a row, whoever asks, and of the same secret-id so few at once that there are some left
	// for a right one.
	triesOfAll  = 4
	triesAtOnce = 2
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
	logger *slog.Logger
	lock   string // locked where StateDir is not there yet: a file that every process of ours which makes the same login can open

	before note // what was noted before the attempt that is under way
}

// note is what refusedFile and acceptedFile hold.
type note struct {
	Digest string    `json:"digest,omitempty"` // of what was tried, or accepted, last
	Until  time.Time `json:"until,omitzero"`   // to be left alone; zero: nobody knows whether it was refused
	Tries  int       `json:"tries,omitempty"`  // in a row, with less than quietTime between them
	Same   int       `json:"same,omitempty"`   // those of them with Digest
	Last   time.Time `json:"last,omitzero"`

	unknown durable.Unknown
}

// verdict is what is known of a secret-id before it is tried.
type verdict int

const (
	unknown       verdict = iota
	wasAccepted           // by the last login with it that was answered: what is not answered counts for nothing
	wasRefused            // and is to be left alone
	triedTooOften         // so that not even an operator's word may try it
)

// judge tells what is known of digest, and until when it must be left alone. Its error says that nothing can be known.
func (r *refusals) judge(digest string) (verdict, time.Time, error) {
	now := time.Now()
	var err error
	r.before, err = r.load(refusedFile)
	known := &r.before
	refused := known.Digest == digest && !known.Until.IsZero()
	if accepted, _ := r.load(acceptedFile); accepted.Digest == digest && !refused {
		return wasAccepted, time.Time{}, nil
	}
	if until := known.exhausted(digest); now.Before(until) && known.recent(now) {
		return triedTooOften, until, nil
	}
	// A time beyond what we write comes from a clock that was wrong then or is wrong now.
	if refused && now.Before(known.Until) && known.Until.Before(now.Add(2*refusedFor)) {
		return wasRefused, known.Until, nil
	}
	return unknown, time.Time{}, err
}

// exhausted returns until when digest must not be tried, as too much was tried in a row.
func (n *note) exhausted(digest string) time.Time {
	switch {
	case n.Tries >= triesOfAll:
		return n.Last.Add(quietTime)
	case n.Digest == digest && n.Same >= triesAtOnce:
		return n.Last.Add(tryInterval)
	}
	return time.Time{}
}

func (n *note) recent(now time.Time) bool { return now.Sub(n.Last).Abs() < quietTime }

// tried is what is known when digest was tried once more, and, where until is not zero, refused.
func (n *note) tried(digest string, until time.Time) note {
	now := time.Now().UTC()
	next := note{Digest: digest, Until: until, Tries: 1, Same: 1, Last: now, unknown: n.unknown}
	if n.recent(now) {
		next.Tries = n.Tries + 1
		if n.Digest == digest {
			next.Same = n.Same + 1
		}
	}
	return next
}

// begin notes that digest is about to be tried. Who only reads notes nothing before.
func (r *refusals) begin(digest string) error {
	if r.OnlyReads {
		return nil
	}
	return r.save(refusedFile, r.before.tried(digest, time.Time{}))
}

// withdraw removes what begin noted: Vault has not judged the secret-id.
func (r *refusals) withdraw() {
	if !r.OnlyReads {
		r.save(refusedFile, r.before) // on an error it counts
	}
}

// failed notes that a secret-id was tried, and refused until then; zero: nobody knows. digest is asked when there is a
// directory to remember it in, and its key.
func (r *refusals) failed(digest func() string, until time.Time) error {
	if r.OnlyReads {
		r.makeStateDir()
		r.before, _ = r.load(refusedFile)
	}
	tried := r.before.tried(digest(), until.UTC().Truncate(time.Second))
	err := r.save(refusedFile, tried)
	if accepted, _ := r.load(acceptedFile); accepted.Digest == tried.Digest && !until.IsZero() {
		r.save(acceptedFile, note{unknown: accepted.unknown}) // the refusal outweighs it
	}
	return err
}

// accept notes that a login with digest was accepted. Where it cannot be written, the next attempt is noted as any other.
func (r *refusals) accept(digest string) error {
	if r.OnlyReads {
		return nil
	}
	if known, _ := r.load(acceptedFile); known.Digest != digest {
		r.save(acceptedFile, note{Digest: digest, unknown: known.unknown})
	}
	if known, _ := r.load(refusedFile); known.Digest != "" {
		return r.save(refusedFile, note{unknown: known.unknown})
	}
	return nil
}

func (r *refusals) load(file string) (known note, err error) {
	known.unknown, err = readRecord(filepath.Join(r.StateDir, file), &known)
	return known, err
}

// save removes the file where there is nothing to say.
func (r *refusals) save(file string, n note) error {
	path := filepath.Join(r.StateDir, file)
	if n.Digest == "" && n.unknown.IsZero() {
		return removeFile(path)
	}
	return writeRecord(path, n, n.unknown)
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

// makeStateDir takes the key of the directory, which another process may have made since: what is noted there can be told by
// that key only. Who notes something finds out why the directory cannot be made.
func (r *refusals) makeStateDir() {
	if r.MakeStateDir == nil {
		return
	}
	if key, err := r.MakeStateDir(); err == nil {
		r.DigestKey = key
	}
}

// turn waits until no other process of ours is between looking here and noting what came of it: five commands that are
// started together make one login. A command that only reads gives up where that takes longer than turnLimit; a daemon goes
// on, as it notes what it tries beforehand.
func (r *refusals) turn(ctx context.Context) (end func(), err error) {
	if !r.OnlyReads {
		r.makeStateDir()
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
			return nil, fmt.Errorf("vault login: waiting for another process: %w", ctx.Err())
		}
		if time.Since(began) > turnLimit {
			err = fmt.Errorf("another process holds the lock on %s: a campaign-credsync that logs in, or was stopped while it did; "+
				"lslocks shows it", file.Name())
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	switch {
	case err != nil && r.OnlyReads:
		file.Close()
		return nil, fmt.Errorf("vault login: %w", err)
	case err != nil:
		r.logger.Warn("login goes on without waiting for another process", "reason", err.Error())
	}
	if _, err := os.Stat(r.StateDir); err == nil && r.OnlyReads {
		r.makeStateDir()
	}
	return func() { file.Close() }, nil
}
