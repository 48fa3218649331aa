// Package jsonfile reads the credential from a JSON object in a file that other programs write: Vault Agent, the kubelet, a
// person. Its keys are those of a secret, and "version" is the number that its writer counts up. Without it there is no
// order: every other content is taken for the newer one.
//
// A file that has just changed is left alone for a moment before it is believed, as it may be half written. A writer that
// pauses in the middle of a well-formed mixture of old and new is not seen: a rename is the way to write it.
package jsonfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strconv"
	"sync"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/filewatch"
	"campaign-credsync/internal/regularfile"
)

// File is a credential in a file. Different Files may be polled concurrently, one File by one caller at a time.
type File struct {
	path   string
	key    []byte
	logger *slog.Logger

	believed string // the content that was believed last: see content.id
	warned   bool   // of its rights
}

// New names the file at path. digestKey is that of the digests which tell contents apart.
func New(path string, digestKey []byte, logger *slog.Logger) *File {
	return &File{path: path, key: digestKey, logger: logger}
}

const (
	// quiet is how long a content must stay the same before it is believed.
	quiet = 100 * time.Millisecond
	// brokenGrace is the same for what is no whole JSON object: a shell empties the file of "vault kv get … > file" first, and
	// fills it when Vault has answered.
	brokenGrace = 2 * time.Second
	// quietLimit bounds the wait for a file that changes all the time.
	quietLimit = 5 * time.Second
	// maxFile bounds the content in bytes.
	maxFile = 1 << 20
)

// Poll reads the file. need is asked whether the asker wants that version; when it does not, Credential is nil. It waits only
// for a content that is not the one of the last Poll, and returns early when ctx is done.
//
// The error is a [*credential.Refusal] when there is no file, or its content is of no use. Any other error (no permission,
// an error of the disk) says nothing about the content.
func (f *File) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	c, err := f.awaitQuiet(ctx, f.read)
	if err != nil {
		return credential.Reading{}, err
	}
	if c.err != nil {
		return credential.Reading{}, f.explain(c.err)
	}
	f.warnOfRights(c.mode)
	version, problem := f.version(c.data)
	if problem != "" {
		return credential.Reading{}, &credential.Refusal{Version: version, Code: credential.ReasonSecretMalformed, Reason: f.name() + " " + problem}
	}
	if !need(version) {
		return credential.Reading{Version: version}, nil
	}
	return credential.Reading{Version: version, Credential: credential.FromJSON(f.name(), version, c.data)}, nil
}

func (f *File) name() string { return credential.Escape(f.path) }

// awaitQuiet returns the content of the file once it is believed. read may take any time, so a content is known to have stayed the
// same from the end of the look that found it first to the beginning of the last one.
func (f *File) awaitQuiet(ctx context.Context, read func() content) (content, error) {
	began := time.Now()
	c := read()
	changed := time.Now()
	for looked := began; c.id() != f.believed; {
		if same := looked.Sub(changed); same >= brokenGrace || same >= quiet && c.err == nil && isWhole(c.data) {
			break
		}
		if time.Since(began) > quietLimit {
			return content{}, fmt.Errorf("file %s: it is being changed all the time; asked again later", f.name())
		}
		select {
		case <-ctx.Done():
			return content{}, fmt.Errorf("file %s: waiting for its writer: %w", f.name(), ctx.Err())
		case <-time.After(quiet):
		}
		looked = time.Now()
		next := read()
		if next.id() != c.id() {
			changed = time.Now()
		}
		c = next
	}
	f.believed = c.id()
	return c, nil
}

// content is what one look at the file showed.
type content struct {
	data []byte
	mode fs.FileMode
	err  error
}

// id tells contents apart.
func (c content) id() string {
	if c.err != nil {
		return c.err.Error()
	}
	sum := sha256.Sum256(c.data)
	return string(sum[:])
}

func isWhole(data []byte) bool {
	return json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}

// errSize is what a look may show in place of a content, beside the errors of regularfile.
var errSize = fmt.Errorf("is larger than %d KiB; write one there that holds the credential only", maxFile>>10)

func (f *File) read() content {
	file, info, err := regularfile.Open(f.path)
	if err != nil {
		return content{err: err}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errSize
	}
	return content{data: data, mode: info.Mode(), err: err}
}

// explain puts an error into words, and tells whether it says something about the secret: there is none, or about the way
// to it.
func (f *File) explain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the path is named here, escaped
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &credential.Refusal{Code: credential.ReasonSecretMissing, Reason: fmt.Sprintf("no file at %s; write it there, or correct file of the instance", f.name())}
	case errors.Is(err, regularfile.ErrNotRegular), errors.Is(err, errSize):
		return &credential.Refusal{Code: credential.ReasonSecretMalformed, Reason: fmt.Sprintf("%s %v", f.name(), err)}
	case errors.Is(err, fs.ErrPermission): // which names the remedy
		return credential.NeedsOperator(fmt.Errorf("file %s: %w", f.name(), err))
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return credential.NeedsOperator(fmt.Errorf("file %s: %w; correct the path: file of the instance", f.name(), err))
	}
	return fmt.Errorf("file %s: read: %w", f.name(), err)
}

// version names the content. problem says why it is of no use, and version is then what to remember that by.
func (f *File) version(data []byte) (v credential.Version, problem string) {
	unusable := credential.ContentVersion(f.key, data)
	var keys map[string]json.RawMessage
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return unusable, "is empty; write the credential there"
	case !isWhole(data) || json.Unmarshal(data, &keys) != nil:
		return unusable, "is not a whole JSON object; write it anew, best into another file that is then renamed over it"
	}
	if twice := keyTwice(data); twice != "" {
		return unusable, fmt.Sprintf("has the key %q twice, and nobody can tell which one is meant; write it once", credential.Clean(twice))
	}
	number, there := keys["version"]
	if !there {
		return credential.ContentVersion(f.key, credential.Canonical(data)), ""
	}
	if n, _ := strconv.Atoi(string(number)); 0 < n && n <= maxVersion && strconv.Itoa(n) == string(number) {
		v = credential.NumberedContent(n, f.key, credential.Canonical(data))
		v.Secret = f.path
		return v, ""
	}
	return unusable, `has a "version" that is no whole number from 1 to 2^53; write such a number without quotes, or leave the key out`
}

// keyTwice returns a key that the JSON object has more than once; empty: none.
func keyTwice(object []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(object))
	seen := map[string]bool{}
	decoder.Token() // the brace
	for decoder.More() {
		key, _ := decoder.Token()
		name, ok := key.(string)
		if !ok || seen[name] {
			return name
		}
		seen[name] = true
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return ""
		}
	}
	return ""
}

func (f *File) warnOfRights(mode fs.FileMode) {
	if mode.Perm()&0o006 == 0 || f.warned {
		return
	}
	f.warned = true
	f.logger.Warn("every user of this machine may read or change the file of the credential: chmod o-rw it", "file", f.path,
		"mode", fmt.Sprintf("%04o", mode.Perm()))
}

// Watch calls the func of each file when it may have changed, so that the next poll can be brought forward. The funcs may be called
// concurrently. It returns when ctx is done and everything it started has ended. Nothing depends on it.
func Watch(ctx context.Context, changed map[*File]func(), logger *slog.Logger) {
	if len(changed) == 0 {
		return
	}
	var files []filewatch.File
	for f, call := range changed {
		var mu sync.Mutex // calls may overlap
		var called time.Time
		files = append(files, filewatch.File{Path: f.path, Quiet: gather, Changed: func(bool) {
			mu.Lock()
			defer mu.Unlock()
			select {
			case <-time.After(time.Until(called.Add(pace))):
				called = time.Now()
				call()
			case <-ctx.Done():
			}
		}})
	}
	filewatch.Watch(ctx, files, logger)
}

// maxVersion is the largest number that every program that reads JSON takes for itself.
const maxVersion = 1 << 53

const (
	// gather is how long events are waited for that belong together; whether the file was left alone is for Poll to see.
	gather = 5 * time.Millisecond
	// pace is the least time between two calls for a file: the events of one whose times change never end.
	pace = time.Second
)
