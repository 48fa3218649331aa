package sources

import (
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

	"campaign-credsync/internal/durable"
)

// refusedFor is how long a refused secret-id is left alone, jittered.
const refusedFor = time.Hour

const refusedFile = "refused-secret-id.json"

// refusals remembers the one secret-id that Vault refused last, by keyed digest, in a file: the next start must not try
// it again. The file is read each time, so that the daemon sees what another command of ours learnt. Not safe for
// concurrent use.
type refusals struct {
	dir string // empty: in memory only
	key []byte

	memory *refusal // what could not be written, or has nowhere to go
}

type refusal struct {
	Digest string    `json:"digest"`
	Until  time.Time `json:"until"`
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

// until tells whether digest is to be left alone, and how long.
func (r *refusals) until(digest string, now time.Time) (time.Time, bool) {
	for _, known := range []*refusal{r.memory, r.load()} {
		// A time beyond what we write comes from a clock that was wrong then or is wrong now.
		if known != nil && known.Digest == digest && now.Before(known.Until) && known.Until.Before(now.Add(2*refusedFor)) {
			return known.Until, true
		}
	}
	return time.Time{}, false
}

// load returns what the file says, or nil: a file that is not there or not readable costs one more login, no harm.
func (r *refusals) load() *refusal {
	if r.dir == "" {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(r.dir, refusedFile))
	if err != nil {
		return nil
	}
	known := &refusal{}
	if json.Unmarshal(content, known) != nil {
		return nil
	}
	return known
}

// add remembers digest, in memory in any case. Its error says that the file could not be written.
func (r *refusals) add(digest string, now time.Time) (time.Time, error) {
	r.memory = &refusal{
		Digest: digest,
		Until:  now.Add(time.Duration(float64(refusedFor) * jitter())).UTC().Truncate(time.Second),
	}
	if r.dir == "" {
		return r.memory.Until, nil
	}
	content, err := json.Marshal(r.memory)
	if err != nil {
		return r.memory.Until, err
	}
	return r.memory.Until, durable.WriteFile(filepath.Join(r.dir, refusedFile), append(content, '\n'))
}

// forget is called after a login: nothing is refused any more.
func (r *refusals) forget() error {
	r.memory = nil
	if r.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(r.dir, refusedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the refused secret-id: %w", err)
	}
	return nil
}
