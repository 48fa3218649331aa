package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// reverts demands that drift is reverted.
func reverts(w *world.World, secret string) {
	w.T.Helper()
	w.Blank("prod")
	w.OnDisk("prod", secret)
}

// Whatever is at the place of the history is left as it is; drift is reverted, the status says what is missing, and when it can be written
// again, no more.
func TestHistoryFileIsReplaced(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path, other string) error{
		"by a link":      func(path, other string) error { return os.Symlink(other, path) },
		"by a hard link": func(path, other string) error { return os.Link(other, path) },
		"by a directory": func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"by a FIFO":      func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
		"by nothing":     func(string, string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{})
			w.Happened("activated")
			path, other := filepath.Join(w.StateDir(), "history.jsonl"), w.Path("other")
			w.Must(os.WriteFile(other, []byte("of somebody else"), 0o600))
			w.Must(os.Remove(path))
			w.Must(put(path, other))
			reverts(w, secrets["prod"])
			if name != "by nothing" {
				w.Warns("history_failing", false, "history.jsonl")
				w.Must(os.Remove(path))
				w.Warns("history_failing", true) // by itself: nothing else happens
			}
			w.Happened("drift_reverted")
			if text, err := os.ReadFile(other); err != nil || string(text) != "of somebody else" {
				t.Errorf("the other file: %q, %v", text, err)
			}
		})
	}
}

// A daemon that is killed in the middle of a line loses that line alone.
func TestHistoryOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Happened("activated")
	w.Kill()
	path := filepath.Join(w.StateDir(), "history.jsonl")
	info, err := os.Stat(path)
	w.Must(err)
	w.Must(os.Truncate(path, info.Size()-10))
	w.StartDaemon()
	w.Happened("started")
	reverts(w, secrets["prod"])
	w.Happened("drift_reverted")
	var got []string
	for _, e := range w.History() {
		got = append(got, e.Kind)
	}
	const want = "started applied started drift_reverted"
	if all := strings.Join(got, " "); strings.TrimSuffix(all, " activated") != want { // of drift that stayed for 2 s, on a busy machine
		t.Errorf("%s, want %s", all, want)
	}
}

// With a state directory on a disk that hangs, drift is reverted, and the status says that the history hangs. When the disk works again,
// the history has it all.
func TestHistoryOnADiskThatHangs(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	_, secret := w.NewSecret("prod")
	w.Must(os.MkdirAll(w.StateDir(), 0o700))
	freeze, thaw := w.Freezes(w.StateDir())
	w.StartDaemon()
	w.InSync(1)
	w.Happened("activated")
	freeze()
	for range 3 {
		reverts(w, secret)
	}
	w.Warns("history_failing", false, "does not end")
	thaw()
	w.Warns("history_failing", true)
	w.InSync(1)
	w.Stop()
	if n := revertsInHistory(w); n != 3 {
		t.Errorf("the history has %d reverts, want 3", n)
	}
}

func revertsInHistory(w *world.World) (n int) {
	for _, e := range w.History() {
		if e.Kind == "drift_reverted" {
			n++
		}
	}
	return n
}

// With a full state directory, events are dropped and counted, which the status says; the history goes on when there is room.
func TestHistoryOnAFullDisk(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{})
	w.Must(os.MkdirAll(w.StateDir(), 0o700))
	w.Must(unix.Mount("tmpfs", w.StateDir(), "tmpfs", 0, "size=256k,mode=700"))
	w.Last = append(w.Last, func() { unix.Unmount(w.StateDir(), unix.MNT_DETACH) })
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Happened("activated")
	ballast := filepath.Join(w.StateDir(), "ballast")
	w.Run("sh", "-c", `head -c 262144 /dev/zero >"$1" || true`, "sh", ballast)
	for failing := false; !failing; {
		reverts(w, secret)
		s, err := w.Asker().Status(w.Ctx)
		w.Must(err)
		for _, warning := range s.Warnings {
			failing = failing || warning.Code == "history_failing" && strings.Contains(warning.Text, "no space left on device")
		}
	}
	w.Must(os.Remove(ballast))
	w.Warns("history_failing", true)
	w.Logged("history is written again")
	reverts(w, secret)
	w.Happened("drift_reverted")
}
