package login

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
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

	unsaved note // what no file took: this process remembers it all the same
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

// begin returns an error while the secret-id of a must not be tried. An attempt that Vault may count as a refused one is
// noted. again is an operator's order: it may be one that was refused.
func (r *refusals) begin(a *attempt, again bool) error {
	known, err := r.load(refusedFile)
	if r.unsaved.Digest != "" {
		known = r.unsaved
	}
	a.before = known
	a.accepted, _ = r.load(acceptedFile)
	now := time.Now()
	until := known.exhausted(a.digest, now)
	refused := known.Digest == a.digest && !known.Until.IsZero()
	// A time beyond what we write comes from a clock that was wrong then or is wrong now.
	leftAlone := refused && now.Before(known.Until) && known.Until.Before(now.Add(2*refusedFor))
	switch {
	case a.accepted.Digest == a.digest && !refused: // by the last login with it that was answered
		return nil
	case now.Before(until):
		return &BackoffError{credential.NeedsOperator(errors.New(a.tooOften)), until}
	case leftAlone && !again:
		return &BackoffError{credential.NeedsOperator(errors.New(a.refused)), known.Until}
	}
	if err == nil && !r.onlyReads() { // which writes only what a failure tells
		err = r.save(refusedFile, known.tried(a.digest, time.Time{}))
	}
	if err != nil {
		return credential.NeedsOperator(fmt.Errorf("vault login: not tried, as a refused secret-id could not be remembered, and five refused "+
			"logins lock the role for every host: %w; let this user write to state_dir", err))
	}
	a.counts = true
	return nil
}

// exhausted returns until when digest must not be tried, as too much was tried in a row.
func (n *note) exhausted(digest string, now time.Time) time.Time {
	switch {
	case !n.recent(now):
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

// refuse remembers that the secret-id of a was refused and is to be left alone until then.
func (r *refusals) refuse(a *attempt, until time.Time) {
	if a.accepted.Digest == a.digest {
		r.save(acceptedFile, note{unknown: a.accepted.unknown}) // the refusal outweighs it
	}
	r.note(a.before.tried(a.digest, until.UTC().Truncate(time.Second)))
}

// accept notes that a login with the secret-id of a was accepted. Where it cannot be written, the next attempt is noted as any other.
func (r *refusals) accept(a *attempt) error {
	if a.accepted.Digest != a.digest {
		r.save(acceptedFile, note{Digest: a.digest, unknown: a.accepted.unknown})
	}
	return r.note(note{unknown: a.before.unknown})
}

// note replaces what is known of refused logins.
func (r *refusals) note(n note) error {
	r.unsaved = note{}
	err := r.save(refusedFile, n)
	if err != nil {
		r.unsaved = n
	}
	return err
}

// makeStateDir makes the directory for what is to be noted, where it is not there.
func (r *refusals) makeStateDir() (err error) {
	r.DigestKey, err = r.MakeStateDir()
	return err
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

// digest is keyed, so that it tells nothing to whoever has not the key.
func (r *refusals) digest(parts ...string) string {
	mac := hmac.New(sha256.New, r.DigestKey)
	fmt.Fprintf(mac, "%q", parts) // quotes keep "ab"+"c" apart from "a"+"bc"
	return hex.EncodeToString(mac.Sum(nil))
}

// turn waits until no other process of ours is between looking here and noting what came of it: five commands that are
// started together make one login.
func (r *refusals) turn(ctx context.Context, secretIDFile string) (end func()) {
	// A directory that only this user may open cannot be locked by others.
	dir, err := os.OpenFile(r.StateDir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil && r.onlyReads() { // there may be none yet; the daemon's login does not wait for this lock
		dir, _, err = regularfile.Open(secretIDFile)
	}
	if err != nil {
		return func() {} // nothing can be noted there
	}
	for began := time.Now(); errors.Is(unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) && ctx.Err() == nil; {
		if time.Since(began) > turnLimit {
			r.logger.Warn("login goes on without waiting for another process", "reason", "another process holds the lock on "+dir.Name()+
				": a campaign-credsync that logs in, or was stopped while it did; lslocks shows it")
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := os.Stat(r.StateDir); err == nil && r.onlyReads() {
		r.makeStateDir() // by another meanwhile, with another key
	}
	return func() { dir.Close() }
}
