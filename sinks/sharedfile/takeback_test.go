package sharedfile

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/logtest"
	"campaign-credsync/test/skip"
)

// interrupted is a replacement stopped right after its exchange: the copy is at the path, what it displaced under the
// copy's name. The races that lead here last microseconds; here each of them is laid out by hand.
type interrupted struct {
	*replacement
	t      *testing.T
	old    *openFile
	copied *fileCopy
}

const beforeIt, ours = "<old/>", "<ours/>"

func wellFormed(content []byte) error { return nil }

func newInterrupted(t *testing.T, thirdParty func(path string)) *interrupted {
	t.Helper()
	c := New(filepath.Join(t.TempDir(), "config-prod.xml"), wellFormed, slog.New(slog.DiscardHandler))
	if err := os.WriteFile(c.path, []byte(beforeIt), 0o640); err != nil {
		t.Fatal(err)
	}
	p, err := c.locate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	i := &interrupted{t: t, replacement: &replacement{File: c, place: p, merge: func(current []byte) ([]byte, error) {
		return []byte(strings.Replace(string(current), "old", "ours", 1)), nil
	}}}
	if i.old, err = c.openQuiet(t.Context(), p, heldFor); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.old.close)
	if i.copied, err = c.newCopy(p, i.old, []byte(beforeIt), []byte(ours)); err != nil {
		t.Fatal(err)
	}
	if thirdParty != nil {
		thirdParty(c.path)
	}
	if err := p.swap(i.copied.name); err != nil {
		t.Fatal(err)
	}
	i.copied.shown = true
	t.Cleanup(c.aside.Wait)
	return i
}

func (i *interrupted) wantAtPath(want string) {
	i.t.Helper()
	i.release()
	i.aside.Wait()
	got, err := os.ReadFile(i.path)
	if err != nil || string(got) != want {
		i.t.Errorf("the path shows %q, %v, want %q", got, err, want)
	}
	if left, err := i.strays(); err != nil || len(left) != 0 {
		i.t.Errorf("left beside it: %q, %v", left, err)
	}
}

func renameOver(t *testing.T, content string) func(path string) {
	return func(path string) {
		other := path + ".other"
		if err := os.WriteFile(other, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(other, path); err != nil {
			t.Fatal(err)
		}
	}
}

// Somebody renamed an update over the file just before the exchange: it is put back.
func TestTakeBackOfADisplacedUpdate(t *testing.T) {
	i := newInterrupted(t, renameOver(t, "<theirs/>"))
	if i.shows(i.copied.name, i.old.stat) {
		t.Fatal("what was displaced passes for what was read")
	}
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<theirs/>")
}

// The same, and a third party has replaced our copy since: theirs is newer than both.
func TestTakeBackComesTooLate(t *testing.T) {
	i := newInterrupted(t, renameOver(t, "<theirs/>"))
	renameOver(t, "<newest/>")(i.path)
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<newest/>")
}

// The same, and our copy was removed since.
func TestTakeBackOfAFileThatWasRemoved(t *testing.T) {
	i := newInterrupted(t, renameOver(t, "<theirs/>"))
	if err := os.Remove(i.path); err != nil {
		t.Fatal(err)
	}
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(i.path); !os.IsNotExist(err) {
		t.Errorf("the file was created: %v", err)
	}
}

// A writer who opened our copy in that instant waits for its lease. The copy is exchanged again, with the update in it,
// and so the writer ends up at the path.
func TestWhoWaitsForACopyThatIsTakenBackEndsUpAtThePath(t *testing.T) {
	i := newInterrupted(t, renameOver(t, "<old theirs='1'/>"))
	wrote := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(i.path, os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteString("<written/>          ")
			f.Close()
		}
		wrote <- err
	}()
	for began := time.Now(); !i.copied.leaseBroken(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("nobody waits")
		}
	}
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	if i.takenBack == nil {
		t.Fatal("the copy that somebody waits for was thrown away")
	}
	if got, _ := os.ReadFile(i.path); string(got) != "<old theirs='1'/>" {
		t.Errorf("meanwhile the path shows %q", got)
	}
	i.old.unlease()
	if state, err := i.try(t.Context()); err != nil || state != replaced {
		t.Fatal(state, err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	i.takenBack = nil
	i.wantAtPath("<written/>          ")
}

// Somebody has found our copy at the path, and asks for it only when it was taken back: they end up at the path, too.
func TestWhoComesLateForACopyThatWasTakenBackEndsUpAtThePath(t *testing.T) {
	i := newInterrupted(t, renameOver(t, "<old theirs='1'/>"))
	found, err := unix.Open(i.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(found)
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	i.old.unlease()
	if state, err := i.try(t.Context()); err != nil || state != replaced {
		t.Fatal(state, err)
	}
	late := fmt.Sprintf("/proc/self/fd/%d", found)
	if got, err := os.ReadFile(late); err != nil || string(got) != "<ours theirs='1'/>" {
		t.Errorf("they read %q, %v", got, err)
	}
	if err := os.WriteFile(late, []byte("<old late='1'/>"), 0); err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<old late='1'/>")
}

// What waits for a copy that cannot be exchanged again, as there is no whole file at the path any more, is not lost: it is kept
// beside the path, and told.
func TestUpdateThatCannotGetToThePathIsKept(t *testing.T) {
	log := new(logtest.Buffer)
	i := newInterrupted(t, renameOver(t, "<old theirs='1'/>"))
	i.log = slog.New(slog.NewTextHandler(log, nil))
	found, err := unix.Open(i.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(found), "found")
	defer file.Close()
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	copied := i.takenBack
	// Another process: to the one that holds a lease the kernel sends a signal, which interrupts an open() of its own.
	late := exec.Command("sh", "-c", "printf '%s' \"<old late='1'/>\" >/proc/self/fd/3")
	late.ExtraFiles = []*os.File{file}
	go func() { wrote <- late.Run() }()
	for began := time.Now(); !copied.leaseBroken(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("nobody waits")
		}
	}
	i.old.unlease()
	writer, err := os.OpenFile(i.path, os.O_RDWR, 0) // until it is done, nothing is exchanged
	if err != nil {
		t.Fatal(err)
	}
	i.release() // as when an error ends the replacement
	renameOver(t, "<newest/>")(i.path)
	writer.Close()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	i.aside.Wait()
	left, err := i.strays()
	if err != nil || len(left) != 1 {
		t.Fatalf("beside the path: %q, %v", left, err)
	}
	kept := filepath.Join(filepath.Dir(i.path), left[0])
	if got, err := os.ReadFile(kept); err != nil || string(got) != "<old late='1'/>" || !strings.Contains(log.String(), kept) {
		t.Errorf("kept %q, %v; told:\n%s", got, err, log)
	}
	for range 2 { // also by the next start
		if err := i.SettleStrays(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(kept); err != nil || string(got) != "<old late='1'/>" {
		t.Errorf("then %q, %v", got, err)
	}
	if got, err := os.ReadFile(i.path); err != nil || string(got) != "<newest/>" {
		t.Errorf("the path shows %q, %v", got, err)
	}
}

// A writer who opens the file for writing before the exchange breaks our read lease: the judgement must see it.
func TestAWriterInWaitingIsSeen(t *testing.T) {
	i := newInterrupted(t, nil)
	wrote := make(chan error, 1)
	go func() { // by its other name: in the race, the path was looked up before the exchange
		f, err := os.OpenFile(filepath.Join(filepath.Dir(i.path), i.copied.name), os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteString("<mine/>")
			f.Close()
		}
		wrote <- err
	}()
	for began := time.Now(); !i.old.leaseBroken(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the writer is not seen")
		}
	}
	if err := i.takeBack(i.old, i.copied); err != nil {
		t.Fatal(err)
	}
	i.old.unlease()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<mine/>")
}

// A copy whose removal failed is dealt with by the next replacement, without a restart.
func TestCopyThatStayedIsSettledByTheNextReplacement(t *testing.T) {
	i := newInterrupted(t, renameOver(t, "<theirs/>"))
	i.copied.close()
	i.old.unlease()
	i.unsettled = true // as when an error kept it from being taken back: the update is beside the file
	if err := i.Update(t.Context(), i.merge); err != nil {
		t.Fatal(err)
	}
	i.wantAtPath("<theirs/>")
	if i.unsettled {
		t.Error("settled, and yet to be settled")
	}
}

// A link that is made in the instant before the exchange is seen when what was displaced is judged.
func TestLinkInTheInstantOfTheExchange(t *testing.T) {
	i := newInterrupted(t, nil)
	if err := i.swap(i.copied.name); err != nil { // back, to before the exchange
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Link(i.path, other); err != nil {
		t.Fatal(err)
	}
	if state, err := i.exchange(i.old, []byte(beforeIt), []byte(ours), i.copied); state != overtaken || err != nil {
		t.Fatal(state, err)
	}
	if state, err := i.try(t.Context()); state != nothingToDo || !errors.Is(err, credential.ErrCannotSplice) {
		t.Errorf("then %v, %v", state, err)
	}
	i.wantAtPath(beforeIt)
	if one, err := os.Stat(i.path); err != nil {
		t.Error(err)
	} else if two, err := os.Stat(other); err != nil || !os.SameFile(one, two) {
		t.Error("the names were parted")
	}
}

// A directory in which the daemon may make no file is no reason to leave the drift: nlserver writes the file in place.
func TestDirectoryThatCannotBeWrittenLeavesItToNlserver(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root, and to be somebody else for a moment")
	}
	top := t.TempDir()
	file := filepath.Join(top, "config-prod.xml")
	if err := errors.Join(os.WriteFile(file, []byte(beforeIt), 0o640), os.Chown(file, 65534, 65534), os.Chmod(top, 0o755)); err != nil {
		t.Fatal(err)
	}
	c := New(file, wellFormed, slog.New(slog.DiscardHandler))
	p, err := c.locate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	runtime.LockOSThread() // the user below is that of the thread
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	_, err = c.createCopy(p, 0o640)
	if err := unix.Setfsuid(0); err != nil {
		panic(err)
	}
	if !errors.Is(err, credential.ErrCannotSplice) || !errors.Is(err, unix.EACCES) {
		t.Errorf("error is %v", err)
	}
}
