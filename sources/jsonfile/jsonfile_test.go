package jsonfile_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/test/logtest"
	"campaign-credsync/test/standin"
	"campaign-credsync/test/vaulttest/vaultlab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	always = vaultlab.Always
	never  = vaultlab.Never
)

// fileLab is a file in a directory of its own.
type fileLab struct {
	*vaultlab.Lab
	path string
}

var fileKey = []byte("0123456789abcdef0123456789abcdef")

func newFileLab(t *testing.T) *fileLab {
	t.Helper()
	l := &vaultlab.Lab{T: t, Log: &logtest.Buffer{}, Hidden: []string{vaultlab.Canary}}
	t.Cleanup(func() { l.MustNotShow("the log", l.Log.String()) })
	return &fileLab{l, filepath.Join(t.TempDir(), "credential.json")}
}

func (l *fileLab) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l.Log, nil)) }

func (l *fileLab) source() *jsonfile.File { return jsonfile.New(l.path, fileKey, l.logger()) }

func object(changes ...any) []byte {
	text, err := json.Marshal(vaultlab.OAuth(changes...))
	if err != nil {
		panic(err)
	}
	return text
}

func (l *fileLab) write(content []byte) {
	l.T.Helper()
	l.must(os.WriteFile(l.path, content, 0o600))
}

func (l *fileLab) must(err error) {
	l.T.Helper()
	if err != nil {
		l.T.Fatal(err)
	}
}

// A file may be counted by its writer, and then has an order, or not.
func TestFileVersions(t *testing.T) {
	l := newFileLab(t)
	f := l.source()
	l.write(object())
	first := l.MustPoll(f, always)
	if v := first.Version; !v.Unordered || !v.Created.IsZero() || l.Picked(first).ClientSecret.Reveal() != vaultlab.Canary {
		t.Errorf("read %v, version %+v", l.Picked(first), v)
	}
	if again := l.MustPoll(f, never); !again.Version.Equal(first.Version) || again.Credential != nil {
		t.Errorf("without a change: %+v", again)
	}
	// The same content, however it is written.
	l.write([]byte(" {\n" + strings.ReplaceAll(string(object()[1:]), `,`, " ,\t") + "\r\n"))
	if again := l.MustPoll(f, always); !again.Version.Equal(first.Version) {
		t.Errorf("written with white space it is version %+v", again.Version)
	}
	l.write(object("version", 7))
	seven := l.MustPoll(f, always)
	if seven.Version.Number != 7 || seven.Version.Unordered {
		t.Errorf("version %+v", seven.Version)
	}
	l.write(object("version", 7, "note", "more"))
	reused := l.MustPoll(f, always)
	if reused.Version.Number != 7 || reused.Version.Equal(seven.Version) {
		t.Errorf("another content under the same number: %+v", reused.Version)
	}
	l.write(object("version", 6))
	if six := l.MustPoll(f, always).Version; !six.GoesBackFrom(seven.Version) {
		t.Errorf("version %+v", six)
	}
	if logged := l.Log.String(); logged != "" {
		t.Errorf("the usual case is told of: %s", logged)
	}
}

// Whatever stands where the file should be: what is no credential is refused, what says nothing about it is out of reach, no
// value is shown, and the same thing is seen again at once.
func TestFileThatIsOfNoUse(t *testing.T) {
	good := string(object())
	for _, c := range []struct {
		name    string
		make    func(l *fileLab)
		words   []string
		reached bool
	}{
		{"missing", func(*fileLab) {}, []string{"no file at"}, true},
		{"dangling link", func(l *fileLab) { l.must(os.Symlink("nowhere", l.path)) }, []string{"no file at"}, true},
		{"empty", func(l *fileLab) { l.write(nil) }, []string{"is empty"}, true},
		{"blank", func(l *fileLab) { l.write([]byte(" \r\n\t")) }, []string{"is empty"}, true},
		{"cut off", func(l *fileLab) { l.write(object()[:len(good)-1]) }, []string{"not a whole JSON object"}, true},
		{"more behind it", func(l *fileLab) { l.write([]byte(good + good)) }, []string{"not a whole JSON object"}, true},
		{"list", func(l *fileLab) { l.write([]byte("[" + good + "]")) }, []string{"not a whole JSON object"}, true},
		{"text", func(l *fileLab) { l.write([]byte(vaultlab.Canary)) }, []string{"not a whole JSON object"}, true},
		{"quoted", func(l *fileLab) { l.write([]byte(`"` + vaultlab.Canary + `"`)) }, []string{"not a whole JSON object"}, true},
		{"null", func(l *fileLab) { l.write([]byte("null")) }, []string{"not a whole JSON object"}, true},
		{"deep", func(l *fileLab) { l.write([]byte(strings.Repeat(`{"a":`, 200000))) }, []string{"not a whole JSON object"}, true},
		{"no field", func(l *fileLab) { l.write([]byte(`{"version":3}`)) }, []string{"ims_org_id is missing"}, true},
		{"wrapped as Vault does", func(l *fileLab) { l.write([]byte(`{"data":` + good + `}`)) }, []string{"ims_org_id is missing"}, true},
		{"newline in the secret", func(l *fileLab) { l.write(object("client_secret", vaultlab.Canary+"\n")) }, []string{"client_secret ends in a newline"}, true},
		{"too large", func(l *fileLab) { l.write(object("filler", strings.Repeat("x", 1<<20))) }, []string{"larger than 1024 KiB"}, true},
		{"directory", func(l *fileLab) { l.must(os.Mkdir(l.path, 0o700)) }, []string{"not a regular file"}, true},
		{"FIFO", func(l *fileLab) { l.must(unix.Mkfifo(l.path, 0o600)) }, []string{"not a regular file"}, true},
		{"socket", func(l *fileLab) {
			listener, err := net.Listen("unix", l.path)
			l.must(err)
			l.T.Cleanup(func() { listener.Close() })
		}, []string{"not a regular file"}, true},
		{"device", func(l *fileLab) { l.must(os.Symlink("/dev/zero", l.path)) }, []string{"not a regular file"}, true},
		{"version is text", func(l *fileLab) { l.write(object("version", "7")) }, []string{`"version"`, "whole number"}, true},
		{"version is null", func(l *fileLab) { l.write([]byte(strings.Replace(good, "{", `{"version":null,`, 1))) }, []string{"whole number"}, true},
		{"version is zero", func(l *fileLab) { l.write(object("version", 0)) }, []string{"whole number"}, true},
		{"version is negative", func(l *fileLab) { l.write(object("version", -7)) }, []string{"whole number"}, true},
		{"version is a fraction", func(l *fileLab) { l.write(object("version", 7.5)) }, []string{"whole number"}, true},
		{"version has an exponent", func(l *fileLab) { l.write([]byte(strings.Replace(good, "{", `{"version":7e3,`, 1))) }, []string{"whole number"}, true},
		{"version is huge", func(l *fileLab) { l.write([]byte(strings.Replace(good, "{", `{"version":12345678901234567890,`, 1))) }, []string{"whole number"}, true},
		{"version is an object", func(l *fileLab) { l.write(object("version", map[string]any{"a": vaultlab.Canary})) }, []string{"whole number"}, true},
		{"a key twice", func(l *fileLab) {
			l.write([]byte(strings.Replace(good, "{", `{"client_secret":"p8e-AnotherAnotherAnotherAnother123456",`, 1)))
		}, []string{`"client_secret" twice`, "write it once"}, true},
		{"a key twice, once escaped", func(l *fileLab) {
			l.write([]byte(strings.Replace(good, "{", `{"\u0063lient_secret":"p8e-AnotherAnotherAnotherAnother123456",`, 1)))
		}, []string{`"client_secret" twice`, "write it once"}, true},
		{"loop of links", func(l *fileLab) { l.must(os.Symlink(filepath.Base(l.path), l.path)) }, []string{"symbolic links", "correct the path"}, false},
		{"below a file", func(l *fileLab) { l.write(nil); l.path += "/credential.json" }, []string{"not a directory"}, false},
		{"name too long", func(l *fileLab) { l.path += strings.Repeat("x", 300) }, []string{"too long"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // in which only waits take time
				l := newFileLab(t)
				c.make(l)
				f := l.source()
				err := l.MustFail(f, append(c.words, l.path)...)
				refusal, reached := errors.AsType[*credential.Refusal](err)
				if reached != c.reached {
					t.Fatalf("refused: %v", err)
				}
				if !reached && !credential.IsForOperator(err) {
					t.Errorf("waiting mends it not, and it is not said: %v", err)
				}
				began := time.Now()
				again := l.MustFail(f, c.words...)
				if waited := time.Since(began); waited != 0 {
					t.Errorf("what is known was waited for again, %v", waited)
				}
				if again.Error() != err.Error() {
					t.Errorf("told another way: %v, then %v", err, again)
				}
				if reached {
					second, _ := errors.AsType[*credential.Refusal](again)
					if second == nil || !second.Version.Equal(refusal.Version) {
						t.Errorf("refused %+v, then %+v", refusal, second)
					}
				}
			})
		})
	}
}

// A file that may not be read says nothing about the secret. What is right again is taken.
func TestFileWithoutPermission(t *testing.T) {
	l := newFileLab(t)
	l.write(object())
	asNobody(t, l.path)
	f := l.source()
	l.must(os.Chmod(l.path, 0o644))
	first := l.MustPoll(f, always)
	l.must(os.Chmod(l.path, 0))
	err := l.MustFail(f, "permission denied", l.path, "readable for that user")
	if _, refused := errors.AsType[*credential.Refusal](err); refused {
		t.Errorf("refused: %v", err)
	}
	l.must(os.Chmod(l.path, 0o644))
	if again := l.MustPoll(f, never); !again.Version.Equal(first.Version) {
		t.Errorf("version %+v, then %+v", first.Version, again.Version)
	}
}

// asNobody has this thread alone open files with the rights of nobody where the test is root's. It may still change the modes
// of its files.
func asNobody(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	for dir := filepath.Dir(path); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	unix.SetfsuidRetUid(nobody)
	t.Cleanup(func() { unix.SetfsuidRetUid(0); runtime.UnlockOSThread() })
	if now, _ := unix.SetfsuidRetUid(-1); now != nobody {
		t.Fatalf("files are opened as user %d", now)
	}
}

// What every user may read is told once.
func TestFileForEverybody(t *testing.T) {
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1, 0o602: 1} {
		l := newFileLab(t)
		f := l.source()
		for _, secret := range []string{vaultlab.Canary, "p8e-SecondSecondSecondSecondSecond123"} {
			l.write(object("client_secret", secret))
			l.must(os.Chmod(l.path, mode))
			l.MustPoll(f, always)
		}
		if n := strings.Count(l.Log.String(), "chmod o-rw"); n != want {
			t.Errorf("mode %o: told %d times, want %d: %s", mode, n, want, l.Log)
		}
	}
}

// A file that is being written is never taken half: however it is cut in pieces, what comes out is what was there before, or
// what is there in the end. The pauses are shorter than the time for which a file must be left alone.
func TestFileInPieces(t *testing.T) {
	l := newFileLab(t)
	before := object("client_id", "before", "client_secret", "p8e-BeforeBeforeBeforeBeforeBefore12")
	after := object("client_id", "behind", "client_secret", "p8e-BehindBehindBehindBehindBehind12")
	for _, truncate := range []int{0, os.O_TRUNC} { // without it every mixture of the two is well-formed
		for tries := 1; ; tries++ {
			l.write(before)
			mixed, longest := l.takenHalf(after, truncate)
			if mixed == "" {
				break
			}
			if longest < 80*time.Millisecond || tries == 50 { // else the machine was busy, and the writer did not keep up
				t.Fatalf("half of each: %s, with pauses of up to %v", mixed, longest)
			}
		}
	}
}

// takenHalf polls while the file is written in pieces. It returns the mixture that was taken, if any, and the writer's longest pause.
func (l *fileLab) takenHalf(after []byte, truncate int) (mixed string, longest time.Duration) {
	l.T.Helper()
	f := l.source()
	l.MustPoll(f, always)
	written := make(chan error)
	go func() {
		var err error
		longest, err = inPieces(l.path, after, truncate, 12, 40*time.Millisecond)
		written <- err
	}()
	for done := false; !done; {
		select {
		case err := <-written:
			l.must(err)
			done = true
		default:
		}
		c := l.Picked(l.MustPoll(f, always))
		if got := c.ClientID + c.ClientSecret.Reveal()[4:10]; got != "beforeBefore" && got != "behindBehind" {
			mixed = got
		}
	}
	if c := l.Picked(l.MustPoll(f, always)); c.ClientID != "behind" {
		l.T.Errorf("in the end it is %s", c.ClientID)
	}
	return mixed, longest
}

func inPieces(path string, content []byte, flags, pieces int, pause time.Duration) (longest time.Duration, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size := len(content)/pieces + 1
	last := time.Now()
	for from := 0; from < len(content); from += size {
		if _, err := f.Write(content[from:min(from+size, len(content))]); err != nil {
			return 0, err
		}
		longest, last = max(longest, time.Since(last)), time.Now()
		time.Sleep(pause)
	}
	return longest, nil
}

// A file that never comes to rest is no reason to wait for ever, nor to alarm for what is in it.
func TestFileThatNeverRests(t *testing.T) {
	t.Parallel()
	l := newFileLab(t)
	l.write(object())
	f := l.source()
	l.MustPoll(f, always)
	ctx, cancel := context.WithCancel(t.Context())
	began, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ctx.Err() == nil; n++ {
			os.WriteFile(l.path, object("note", n), 0o600)
			if n == 0 {
				close(began)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	defer func() { cancel(); <-ended }()
	<-began
	err := l.MustFail(f, "all the time", l.path)
	if _, refused := errors.AsType[*credential.Refusal](err); refused {
		t.Errorf("refused: %v", err)
	}
	// A stop does not wait for it.
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := f.Poll(short, always); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended with %v", err)
	}
}

// One whose times alone change all the time is taken, and calls for a poll at most once a second.
func TestFileThatIsTouchedAllTheTime(t *testing.T) {
	t.Parallel()
	l := newFileLab(t)
	l.write(object())
	f := l.source()
	before := l.MustPoll(f, always).Version
	standin.Touch(t, l.path)
	l.write(object("note", 1))
	if after := l.MustPoll(f, always).Version; after.Equal(before) {
		t.Errorf("still version %+v", after)
	}
	changed := l.follow(f)
	began := time.Now()
	for range 4 {
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal("no call any more")
		}
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("four calls in %v", took)
	}
}
