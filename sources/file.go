package sources

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
	"regexp"
	"strconv"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

// File is a JSON object in a file that other programs write: Vault Agent, the kubelet, a person. Its keys are those of a
// secret, and "version" is the number that its writer counts up. Without it there is no order: every other content is taken
// for the newer one. Different Files may be polled concurrently, one File by one caller at a time.
type File struct {
	path   string
	key    []byte
	logger *slog.Logger

	settled glance // what it was when it was last left alone; without its content
	warned  bool   // of its rights

	watched *fileWatch
}

// NewFile names the file at path. digestKey is that of the digests which tell contents apart.
func NewFile(path string, digestKey []byte, logger *slog.Logger) *File {
	watched := &fileWatch{file: path, limit: maxFile, absence: true}
	watched.seen = watched.sum() // so that nothing is missed before it is watched
	return &File{path: path, key: digestKey, logger: logger, watched: watched}
}

const (
	// brokenGrace is how long what is no whole JSON object may stay so before it is believed: a shell empties the file of
	// "vault kv get … > file" first, and fills it when Vault has answered.
	brokenGrace = 2 * time.Second
	// settlePatience bounds the wait for a file that changes all the time.
	settlePatience = 5 * time.Second
	// maxFile bounds the content in bytes.
	maxFile = maxAnswer
	// versionKey is where a file may have a number of its own.
	versionKey = "version"
)

// Poll reads the file. need is asked whether the asker wants that version; when it does not, Credential is nil. A content
// that is not the one of the last Poll is believed when it was left alone for a moment, a broken one for two seconds, so
// that nothing is taken that is half written: only then Poll waits, and returns early when ctx is done.
//
// The error is a [*credential.Refusal] when there is no file, or its content is of no use. Any other error (no permission,
// an error of the disk) says nothing about the content.
func (f *File) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	g, err := f.settle(ctx)
	if err != nil {
		return credential.Reading{}, err
	}
	if g.err != nil {
		return credential.Reading{}, f.failure(g.err)
	}
	f.warnOfRights(g.mode)
	version, reason := f.version(g.content)
	if reason != "" {
		return credential.Reading{}, &credential.Refusal{Version: version, Reason: f.name() + " " + reason}
	}
	if !need(version) {
		return credential.Reading{Version: version}, nil
	}
	return credential.Reading{Version: version, Credential: pick(f.name(), version, g.content)}, nil
}

func (f *File) name() string { return credential.Escape(f.path) }

// glance is what one look at the file showed.
type glance struct {
	inode   [2]uint64 // device and number
	size    int64
	written [2]syscall.Timespec // mtime, which can be set, and ctime, which cannot
	mode    fs.FileMode
	content []byte
	sum     [sha256.Size]byte // of the content
	err     error
}

// same reports whether nothing happened between two glances. Times alone do not tell: a clock may be coarse.
func (g glance) same(h glance) bool {
	if g.err != nil || h.err != nil {
		return g.err != nil && h.err != nil && g.err.Error() == h.err.Error()
	}
	return g.inode == h.inode && g.size == h.size && g.written == h.written && g.sum == h.sum
}

func (g glance) whole() bool { return g.err == nil && isWhole(g.content) }

func isWhole(content []byte) bool {
	return json.Valid(content) && isObject(bytes.TrimLeft(content, " \t\r\n"))
}

// errFileSize is what a glance may show in place of a content, beside the errors of regularfile.
var errFileSize = fmt.Errorf("is larger than %d KiB; write one there that holds the credential only", maxFile>>10)

// glance reads the file.
func (f *File) glance() (g glance) {
	file, info, err := regularfile.Open(f.path)
	if err != nil {
		return glance{err: err}
	}
	defer file.Close()
	stat := info.Sys().(*syscall.Stat_t) // always that on Linux
	g = glance{
		inode: [2]uint64{stat.Dev, stat.Ino}, size: stat.Size, mode: info.Mode(),
		written: [2]syscall.Timespec{stat.Mtim, stat.Ctim},
	}
	if g.content, err = io.ReadAll(io.LimitReader(file, maxFile+1)); err != nil {
		return glance{err: err}
	}
	if len(g.content) > maxFile {
		return glance{err: errFileSize}
	}
	g.sum = sha256.Sum256(g.content)
	return g
}

// settle returns what the file is since it was left alone.
func (f *File) settle(ctx context.Context) (glance, error) {
	began := time.Now()
	touched, changed := began, began
	g := f.glance()
	for !g.same(f.settled) {
		if time.Since(changed) >= brokenGrace || time.Since(touched) >= quiet && g.whole() {
			break
		}
		if time.Since(began) > settlePatience {
			return glance{}, fmt.Errorf("file %s: it is being changed all the time; asked again later", f.name())
		}
		select {
		case <-ctx.Done():
			return glance{}, fmt.Errorf("file %s: waiting for its writer: %w", f.name(), ctx.Err())
		case <-time.After(quiet):
		}
		next := f.glance()
		if !next.same(g) {
			touched = time.Now()
		}
		if next.err != nil || g.err != nil || next.sum != g.sum {
			changed = touched
		}
		g = next
	}
	f.settled = g
	f.settled.content = nil
	return g, nil
}

// failure puts an error into words, and tells whether it says something about the secret: there is none, or about the way to
// it.
func (f *File) failure(err error) error {
	refuse := func(format string, args ...any) error {
		return &credential.Refusal{Reason: fmt.Sprintf(format, args...)}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the path is named here, escaped
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("no file at %s; write it there, or correct file", f.name())
	case errors.Is(err, regularfile.ErrNotRegular), errors.Is(err, errFileSize):
		return refuse("%s %v", f.name(), err)
	case errors.Is(err, fs.ErrPermission):
		return forPerson{fmt.Errorf("file %s: %w; make it readable for the daemon's user, and its directories passable",
			f.name(), fs.ErrPermission)}
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return forPerson{fmt.Errorf("file %s: %w; correct the path, or the links on it", f.name(), err)}
	}
	return fmt.Errorf("file %s: read: %w", f.name(), err)
}

// usualVersion has no leading zero, sign, point or exponent: 15 digits are exact in every program that reads JSON.
var usualVersion = regexp.MustCompile(`^[1-9][0-9]{0,14}$`)

// version names the content. reason says why it is of no use, and version is then what to remember that by.
func (f *File) version(content []byte) (v credential.Version, reason string) {
	unusable := credential.ContentVersion(f.key, content)
	var keys map[string]json.RawMessage
	switch {
	case len(bytes.TrimSpace(content)) == 0:
		return unusable, "is empty; write the credential there"
	case !isWhole(content) || json.Unmarshal(content, &keys) != nil:
		return unusable, "is not a whole JSON object; write it anew, best into another file that is then renamed over it"
	}
	if twice := keyTwice(content); twice != "" {
		return unusable, fmt.Sprintf("has the key %q twice, and nobody can tell which one is meant; write it once", clean(twice))
	}
	number, there := keys[versionKey]
	if !there {
		return credential.ContentVersion(f.key, canonical(content)), ""
	}
	if n, err := strconv.Atoi(string(number)); err == nil && usualVersion.Match(number) {
		v = credential.NumberedContent(n, f.key, canonical(content))
		v.Secret = f.path
		return v, ""
	}
	return unusable, fmt.Sprintf(`has a %q that is no positive whole number of at most 15 digits; write such a number without quotes, or leave `+
		`the key out`, versionKey)
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

// WatchFiles calls the func of each file when its content is another than at NewFile or at the last call, also when there is
// none any more, so that the next poll can be brought forward. It follows every symbolic link on the way to a file, and
// returns when ctx is done and everything it started has ended; it runs once at a time. Nothing depends on it.
func WatchFiles(ctx context.Context, changed map[*File]func(), logger *slog.Logger) {
	if len(changed) == 0 {
		return
	}
	var files []*fileWatch
	for f, call := range changed {
		f.watched.changed = call
		files = append(files, f.watched)
	}
	watchFiles(ctx, logger, gather, files...)
}

// gather is how long events are waited for that belong together; whether the file was left alone is for Poll to see.
const gather = 5 * time.Millisecond
