package sharedfile

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// interrupted is a replacement stopped right after its exchange: the copy is at the path, what it displaced under the
// copy's name. The races that lead here last microseconds; here each of them is laid out by hand.
type interrupted struct {
	place
	t      *testing.T
	old    *openFile
	copied *openFile
}

const beforeIt, ours = "<old/>", "<ours/>"

func merge(current []byte) ([]byte, error) {
	return []byte(strings.Replace(string(current), "old", "ours", 1)), nil
}

func newInterrupted(t *testing.T, dir string, thirdParty func(path string)) *interrupted {
	t.Helper()
	c, _, _ := newFile(t, dir, beforeIt)
	p, err := c.locate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.dir.Close() })
	i := &interrupted{t: t, place: p}
	if i.old, err = p.openQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.old.Close() })
	if i.copied, err = p.newCopy(i.old, []byte(beforeIt), []byte(ours)); err != nil {
		t.Fatal(err)
	}
	if thirdParty != nil {
		thirdParty(c.path)
	}
	if err := p.swap(i.copied.name); err != nil {
		t.Fatal(err)
	}
	return i
}

// takesBack takes the copy back, as Update does, and closes what was read.
func (i *interrupted) takesBack(want outcome) {
	i.t.Helper()
	got, err := i.takeBack(i.copied)
	if err != nil || got != want {
		i.t.Fatalf("outcome %v, %v, want %v", got, err, want)
	}
	i.mu.Lock()
	i.letGo(i.copied, got)
	i.old.Close()
	i.mu.Unlock()
}

func (i *interrupted) strays() (names []string) {
	i.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(i.path))
	if err != nil {
		i.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), copyPrefix(i.name)) {
			names = append(names, e.Name())
		}
	}
	return names
}

func (i *interrupted) wantAtPath(want string) {
	i.t.Helper()
	i.dir.Close()
	wantAlone(i.t, i.File, want)
}

func renameOver(t *testing.T, content string) func(path string) {
	return func(path string) {
		other := path + ".other"
		write(t, other, content)
		if err := os.Rename(other, path); err != nil {
			t.Fatal(err)
		}
	}
}

// Somebody renamed an update over the file just before the exchange: it is put back.
func TestTakeBackOfADisplacedUpdate(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), renameOver(t, "<theirs/>"))
	if i.untouched(i.copied.name, i.old, []byte(beforeIt)) {
		t.Fatal("what was displaced passes for what was read")
	}
	i.takesBack(takenBack)
	i.wantAtPath("<theirs/>")
}

// The same, and a third party has replaced our copy since: theirs is newer than both.
func TestTakeBackComesTooLate(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), renameOver(t, "<theirs/>"))
	renameOver(t, "<newest/>")(i.path)
	i.takesBack(gone)
	i.wantAtPath("<newest/>")
}

// The same, and our copy was removed since.
func TestTakeBackOfAFileThatWasRemoved(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), renameOver(t, "<theirs/>"))
	if err := os.Remove(i.path); err != nil {
		t.Fatal(err)
	}
	i.takesBack(gone)
	if _, err := os.Stat(i.path); !os.IsNotExist(err) {
		t.Errorf("the file was created: %v", err)
	}
}

func (i *interrupted) awaitWaiting(f *openFile) {
	i.t.Helper()
	for began := time.Now(); !f.leaseBroken(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			i.t.Fatal("nobody waits")
		}
	}
}

// opensAndWrites has a writer open a path and write.
func opensAndWrites(path, content string) (wrote chan error) {
	wrote = make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteString(content)
			f.Close()
		}
		wrote <- err
	}()
	return wrote
}

// A writer who opened our copy in that instant waits for its lease. The copy gets to the path again, with what is there by then, and
// so the writer ends up there.
func TestWhoWaitsForACopyThatIsTakenBackEndsUpAtThePath(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), renameOver(t, "<old theirs='1'/>"))
	wrote := opensAndWrites(i.path, "<written/>          ")
	i.awaitWaiting(i.copied)
	i.takesBack(takenBack)
	if err := errors.Join(i.Update(t.Context(), merge), <-wrote); err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<written/>          ")
}

// Somebody has found our copy at the path, and asks for it only when it was taken back: they end up at the path, too.
func TestWhoComesLateForACopyThatWasTakenBackEndsUpAtThePath(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), renameOver(t, "<old theirs='1'/>"))
	late := find(t, i.path)
	i.takesBack(takenBack)
	if err := i.Update(t.Context(), merge); err != nil {
		t.Fatal(err)
	}
	if got, err := late.run("cat /proc/self/fd/3").Output(); err != nil || string(got) != "<ours theirs='1'/>" {
		t.Errorf("they read %q, %v", got, err)
	}
	if err := late.run(`printf '%s' "<old late='1'/>" >/proc/self/fd/3`).Run(); err != nil {
		t.Fatal(err)
	}
	late.Close()
	i.wantAtPath("<old late='1'/>")
}

// found is a file that a process found at a path and has not asked for yet.
type found struct{ *os.File }

func find(t *testing.T, path string) found {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := found{os.NewFile(uintptr(fd), "found")}
	t.Cleanup(func() { f.Close() })
	return f
}

// run runs a script, with the file as its descriptor 3, in another process: to the one that holds a lease the kernel sends a signal,
// which interrupts an open() of its own.
func (f found) run(script string) *exec.Cmd {
	command := exec.Command("sh", "-c", script)
	command.ExtraFiles = []*os.File{f.File}
	return command
}

// An update of what was displaced, which cannot get to the path as another is there by now, is not lost: it is kept beside the
// path, and told, and stays there whatever the path shows later. Nobody else has to wait until it is written.
func TestUpdateThatCannotGetToThePathIsKept(t *testing.T) {
	c, path, log := newFile(t, t.TempDir(), beforeIt)
	left := comesTooLate(t, c, `{ echo open >&2; read done; printf '%s' "<old late='1'/>"; } >/proc/self/fd/3`)
	if len(left) != 1 {
		t.Fatalf("beside the path: %q", left)
	}
	kept := filepath.Join(filepath.Dir(path), left[0])
	wantContent(t, kept, "<old late='1'/>")
	if !strings.Contains(log.String(), kept) {
		t.Errorf("told:\n%s", log)
	}
	for _, shown := range []string{"<newest/>", ours, beforeIt} { // also by the next start
		renameOver(t, shown)(path)
		if err := c.SettleStrays(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantContent(t, kept, "<old late='1'/>")
		wantContent(t, path, shown)
	}
}

// Who only opens it and writes nothing leaves nothing to be kept.
func TestDisplacedFileThatNobodyWritesIsRemoved(t *testing.T) {
	c, path, log := newFile(t, t.TempDir(), beforeIt)
	if left := comesTooLate(t, c, `{ echo open >&2; read done; :; } <>/proc/self/fd/3`); len(left) != 0 || log.String() != "" {
		t.Errorf("beside the path: %q, told:\n%s", left, log)
	}
	wantContent(t, path, "<newest/>")
}

// comesTooLate has a script, whose descriptor 3 is the file that an update has displaced, open it while the path is written by somebody
// else. It returns what is left beside the path.
func comesTooLate(t *testing.T, c *File, script string) (left []string) {
	t.Helper()
	path := c.path
	late := find(t, path).run(script)
	opened, err := late.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	done, err := late.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context(), merge); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_RDWR, 0) // until it is done, nothing is exchanged
	if err != nil {
		t.Fatal(err)
	}
	i := &interrupted{t: t, place: place{File: c, name: filepath.Base(path)}}
	for f := range c.guarded {
		if err := late.Start(); err != nil {
			t.Fatal(err)
		}
		i.awaitWaiting(f)
	}
	renameOver(t, "<newest/>")(path)
	writer.Close()
	if _, err := opened.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if content, _, err := c.Read(t.Context()); err != nil || string(content) != "<newest/>" || time.Since(began) > heldFor/2 {
		t.Errorf("after %v, read %q, %v", time.Since(began), content, err)
	}
	if err := errors.Join(done.Close(), late.Wait()); err != nil {
		t.Fatal(err)
	}
	c.guards.Wait()
	return i.strays()
}

// Somebody waits for a copy that was taken back, and there is no room for what the path shows by now: they find the copy whole, and
// what they write is kept as well.
func TestUpdateOfACopyThatCannotGetToThePathIsKept(t *testing.T) {
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "size=64k,mode=0755")
	i := newInterrupted(t, dir, renameOver(t, "<old theirs='1'/>"+padding))
	late := find(t, i.path)
	leave(t, dir, 0) // one page, when the file that was replaced is closed; two are lacking
	i.takesBack(takenBack)
	read, err := late.run(`exec 4<>/proc/self/fd/3; cat <&4; printf '%s' "<!-- late -->" >&4`).Output()
	if err != nil || string(read) != ours {
		t.Errorf("they read %.200q, %v", read, err)
	}
	i.guards.Wait()
	for range 2 {
		left := i.strays()
		if len(left) != 1 {
			t.Fatalf("beside the path: %q", left)
		}
		wantContent(t, i.beside(left[0]), ours+"<!-- late -->")
		if err := i.SettleStrays(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantContent(t, i.path, "<old theirs='1'/>"+padding)
}

// Where others replace the file again and again, no more than so many copies are held open.
func TestNoMoreIsTriedWhileManyAreGuarded(t *testing.T) {
	c, path, _ := newFile(t, t.TempDir(), beforeIt)
	for range 2 * maxGuarded {
		c.guarded[new(openFile)] = true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	tries := 0
	err := c.Update(ctx, func(current []byte) ([]byte, error) {
		tries++
		renameOver(t, "<old theirs='1'/>")(path)
		return merge(current)
	})
	if tries != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d tries, %v", tries, err)
	}
}

// A writer who opens the file for writing before the exchange breaks our read lease: the judgement must see it.
func TestAWriterInWaitingIsSeen(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), nil)
	// By its other name: in the race, the path was looked up before the exchange.
	wrote := opensAndWrites(filepath.Join(filepath.Dir(i.path), i.copied.name), "<mine/>")
	i.awaitWaiting(i.old)
	if i.untouched(i.copied.name, i.old, []byte(beforeIt)) {
		t.Error("nobody seems to wait")
	}
	i.takesBack(takenBack)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<mine/>")
}

// An update that an error kept from being put back is dealt with by the next replacement, without a restart.
func TestUpdateThatStayedIsSettledByTheNextReplacement(t *testing.T) {
	i := newInterrupted(t, t.TempDir(), renameOver(t, "<theirs/>"))
	stray, away := i.beside(i.copied.name), i.beside("away")
	if err := os.Rename(stray, away); err != nil {
		t.Fatal(err)
	}
	outcome, err := i.takeBack(i.copied)
	if outcome != stranded || err == nil {
		t.Fatal(outcome, err)
	}
	if err := os.Rename(away, stray); err != nil {
		t.Fatal(err)
	}
	i.letGo(i.copied, outcome)
	i.old.Close()
	if err := i.Update(t.Context(), merge); err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<theirs/>")
	if i.unsettled {
		t.Error("settled, and yet to be settled")
	}
}

// A link or a chmod in the instant before the exchange is seen: names are not parted, and rights stay as they were set.
func TestChangeInTheInstantOfTheExchange(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"link":  func(path string) error { return os.Link(path, path+".other") },
		"chmod": func(path string) error { return os.Chmod(path, 0o604) },
	} {
		t.Run(name, func(t *testing.T) {
			i := newInterrupted(t, t.TempDir(), nil)
			if err := errors.Join(i.swap(i.copied.name), change(i.path)); err != nil { // back, to before the exchange
				t.Fatal(err)
			}
			was, err := i.lookAt(i.name)
			if err != nil {
				t.Fatal(err)
			}
			if outcome, err := i.exchange(i.old, i.copied, []byte(beforeIt), []byte(ours)); outcome != overtaken || err != nil {
				t.Fatal(outcome, err)
			}
			i.discard(i.copied)
			i.old.Close()
			if name == "link" { // nor is a file replaced that had two names when it was opened
				linked, err := i.openQuiet(t.Context())
				if err != nil || i.untouched(i.name, linked, []byte(beforeIt)) {
					t.Fatal("a file with two names may be replaced", err)
				}
				linked.Close()
			}
			err = i.Update(t.Context(), merge)
			now, _ := i.lookAt(i.name)
			switch {
			case name == "link" && (!errors.Is(err, credential.ErrCannotSplice) || !sameInode(was, now)):
				t.Errorf("the names were parted: %v", err)
			case name == "chmod" && (err != nil || now.Mode != was.Mode):
				t.Errorf("mode %o became %o, %v", was.Mode, now.Mode, err)
			}
		})
	}
}
