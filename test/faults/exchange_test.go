package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// A power cut keeps what was synced, and of the rest what it likes. So a revert's copy is on disk before it gets a name, and
// before it is at the path; and the directory is synced after the exchange, before the revert counts as done.
func TestRevertReachesTheDiskInOrder(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	for _, change := range []change{revert, revertOfNewFile} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			calls := listCalls(t, tracer, change)
			conf := func(c call) bool { return strings.HasSuffix(c.On, "/conf") }
			copied := func(c call) bool { return strings.Contains(c.On, "/conf/#") } // as the kernel shows a file without a name
			inOrder(t, calls, []step{
				{"the copy is written", func(c call) bool { return c.Call == "pwrite64" && copied(c) }},
				{"the copy is synced", func(c call) bool { return c.Call == "fsync" && copied(c) }},
				{"the copy gets its name", func(c call) bool { return c.Call == "linkat" && strings.Contains(c.On, ".credsync-") }},
				{"it is exchanged", func(c call) bool { return c.Call == "renameat2" && strings.Contains(c.On, ".credsync-") }},
				{"the directory is synced", func(c call) bool { return c.Call == "fsync" && conf(c) }},
			})
			for i, c := range calls { // nothing is done to the copy after it was synced
				if synced := slices.IndexFunc(calls, func(c call) bool { return c.Call == "fsync" && copied(c) }); i > synced && copied(c) &&
					slices.Contains([]string{"pwrite64", "ftruncate", "fchmod", "fchown", "fsetxattr"}, c.Call) {
					t.Errorf("after its sync: %v", c)
				}
			}
		})
	}
}

// What nlserver damaged in a file that cannot be replaced is written in place, and synced before the pre-image is dropped.
func TestRepairInPlaceReachesTheDiskInOrder(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	s := startSweep(t, world.Plain())
	s.w.Must(os.Link(s.w.File("prod"), s.w.Path("second-name.xml")))
	s.w.Faults(`{"write_half": true, "die": true, "times": 1}`)
	s.trace(tracer, "-list")
	rotation.begin(s)
	s.hits(rotation, nil)
	file := s.w.File("prod")
	inOrder(t, s.tracing.calls, []step{
		{"the pre-image is synced", func(c call) bool { return c.Call == "fsync" && strings.Contains(c.On, "prod.before") }},
		{"the file is written", func(c call) bool { return c.Call == "pwrite64" && c.On == file }},
		{"the file is synced", func(c call) bool { return c.Call == "fsync" && c.On == file }},
		{"the pre-image is dropped", func(c call) bool { return c.Call == "unlinkat" && strings.HasSuffix(c.On, "prod.before") }},
	})
	s.settles(call{})
}

// step is a system call that others must come after.
type step struct {
	what string
	is   func(call) bool
}

func inOrder(t *testing.T, calls []call, steps []step) {
	t.Helper()
	at := 0
	for _, s := range steps {
		i := slices.IndexFunc(calls[at:], s.is)
		if i < 0 {
			t.Errorf("%s: not after call %d of\n%s", s.what, at, strings.Trim(fmt.Sprint(calls), "[]"))
			return
		}
		at += i + 1
	}
}

// meeting is a daemon that stands still in the middle of a revert, and a writer that meets it there.
type meeting struct {
	*world.World
	tracing *tracing
	secret  string
	found   *os.File // the file as the path showed it before the exchange, not open for anything
}

// meet has the daemon stand still at a call of a revert.
func meet(t *testing.T, at ...string) *meeting {
	tracer := buildTracer(t)
	w, secrets := world.Started(t, container.Options{Programs: world.Plain()})
	m := &meeting{World: w, tracing: trace(w, tracer, append(at, "-pause")...), secret: secrets["prod"]}
	fd, err := unix.Open(w.File("prod"), unix.O_PATH|unix.O_CLOEXEC, 0) // a revert may be quicker than an open after the edit
	w.Must(err)
	m.found = os.NewFile(uintptr(fd), "found")
	t.Cleanup(func() { m.found.Close() })
	w.Blank("prod")
	w.Eventually("the daemon is in the middle of the revert", func() bool { return len(m.tracing.hit) > 0 })
	return m
}

// writes has a writer open the file that was found, which is another than the path shows when that was exchanged, and waits until
// it has to wait for the daemon. The writer is a process of its own, because a signal to this one may interrupt open(), which then
// begins anew. With a path that finds the file that is there by then; with this descriptor, the one that the daemon has removed.
func (m *meeting) writes(edit func([]byte) []byte) (done chan error) {
	m.T.Helper()
	path := fmt.Sprintf("/proc/self/fd/%d", m.found.Fd())
	var stat unix.Stat_t
	m.Must(unix.Stat(path, &stat))
	document, err := os.ReadFile(path)
	m.Must(err)
	writer := exec.Command("sh", "-c", "exec cat >/proc/self/fd/3")
	writer.Stdin, writer.ExtraFiles = bytes.NewReader(edit(document)), []*os.File{m.found}
	done = make(chan error, 1)
	go func() { done <- writer.Run() }()
	m.Eventually("the writer waits for the file", func() bool {
		locks, err := os.ReadFile("/proc/locks")
		m.Must(err)
		return slices.ContainsFunc(strings.Split(string(locks), "\n"), func(line string) bool {
			return strings.Contains(line, "BREAKING") && strings.Contains(line, fmt.Sprintf(":%d ", stat.Ino))
		})
	})
	return done
}

// reverts waits until the secret is right and so many reverts are counted.
func (m *meeting) reverts(want int) {
	m.T.Helper()
	m.OnDisk("prod", m.secret)
	s := m.AwaitStatus("the reverts are counted", func(s container.Status) bool {
		return s.Applied(1) && world.One(s, "prod").RevertedTotal >= want
	})
	if n := world.One(s, "prod").RevertedTotal; n != want {
		m.T.Errorf("%d reverts, want %d\n%s", n, want, m.Log())
	}
}

func withMark(document []byte, mark string) []byte {
	return bytes.Replace(document, []byte("</serverconf>"), []byte("<!-- "+mark+" --></serverconf>"), 1)
}

// A writer asks for the file between the daemon's last look at it and the exchange: it waits in open() for what is displaced.
// That is seen when the displaced file is judged, so it writes first, and the revert is made of what it wrote.
func TestWriterAtTheExchangeGoesFirst(t *testing.T) {
	t.Parallel()
	m := meet(t, "-first", "renameat2")
	var wrote []byte
	done := m.writes(func(d []byte) []byte { wrote = withMark(d, "first"); return wrote })
	m.tracing.leave()
	m.Must(<-done)
	m.Foreign["prod"] = world.ForeignBytes(wrote)
	m.reverts(1)
}

// A writer has found the file before the exchange, and asks for what it found only when that was displaced for good, as a
// process may that has to wait for a processor in the middle of open(): its update gets to the path all the same.
func TestWriterAfterTheExchangeLosesNothing(t *testing.T) {
	t.Parallel()
	m := meet(t, "-after", "renameat2", "-first", "fsync")
	var wrote []byte
	done := m.writes(func(d []byte) []byte { wrote = withMark(d, "late"); return wrote })
	m.tracing.leave()
	m.Must(<-done)
	m.Foreign["prod"] = world.ForeignBytes(wrote)
	m.reverts(2)
}

// The same, and somebody else has changed what the path shows since: neither update is lost. The one that came late is kept beside
// the file, which is said, for a person to put it in.
func TestWriterAfterTheExchangeMeetsAnother(t *testing.T) {
	t.Parallel()
	m := meet(t, "-after", "renameat2", "-first", "fsync")
	var wrote []byte
	done := m.writes(func(d []byte) []byte { wrote = withMark(d, "late"); return wrote })
	m.Edits("prod", func(d []byte) []byte { return withMark(d, "another") })
	m.tracing.leave()
	m.Must(<-done)
	m.Eventually("the late update is told of", func() bool { return strings.Contains(m.Log(), "its update is beside it") })
	m.reverts(1)
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(m.File("prod")), ".config-prod.xml.credsync-*"))
	m.Must(err)
	if len(kept) != 1 || !strings.Contains(m.Log(), kept[0]) {
		t.Fatalf("kept %q\n%s", kept, m.Log())
	}
	if got, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(got, wrote) {
		t.Errorf("kept %q, %v", got, err)
	}
	m.Must(os.Remove(kept[0]))
}

// Nothing can be removed from conf/, nor replaced there, whatever its rights are: drift is left to nlserver, which writes in
// place, that is said, and no copy is left that could not be removed.
func TestAppendOnlyDirectoryLeavesItToNlserver(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w, secrets := world.Started(t, container.Options{Settings: manyReverts})
	conf, err := os.Open(filepath.Dir(w.File("prod")))
	w.Must(err)
	defer conf.Close()
	flags, err := unix.IoctlGetInt(int(conf.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(conf.Fd()), unix.FS_IOC_SETFLAGS, flags|0x20) // FS_APPEND_FL
	}
	if err != nil {
		skip.Unable(t, "no flags of files here: "+err.Error())
	}
	defer unix.IoctlSetPointerInt(int(conf.Fd()), unix.FS_IOC_SETFLAGS, flags)
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.InSync(1)
	if n := w.CountRuns("start", "set"); n != 2 {
		t.Errorf("nlserver set a credential %d times, want once at the start and once for the drift\n%s", n, w.Log())
	}
	if n := strings.Count(w.Log(), "is append-only: chattr -a it"); n != 1 {
		t.Errorf("told %d times\n%s", n, w.Log())
	}
	w.Check()
}
