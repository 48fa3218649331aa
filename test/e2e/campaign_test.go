package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/internal/skip"
	"campaign-credsync/test/container"
)

type instanceStatus = struct {
	Name           string    `json:"name"`
	State          string    `json:"state"`
	WantedVersion  int       `json:"wanted_version"`
	AppliedVersion int       `json:"applied_version"`
	AppliedAt      time.Time `json:"applied_at"`
	ActivatedAt    time.Time `json:"activated_at"`
	RevertedTotal  int       `json:"drift_reverted_total"`
	LastError      string    `json:"last_error"`
}

// one picks an instance; one that is not there has no state.
func one(s container.Status, instance string) instanceStatus {
	for _, in := range s.Instances {
		if in.Name == instance {
			return in
		}
	}
	return instanceStatus{}
}

// write puts data into an instance's secret.
func (w *world) write(instance string, data map[string]any) (version int) {
	w.t.Helper()
	if secret, ok := data["client_secret"].(string); ok && len(secret) > 8 && !slices.Contains(w.secrets, secret) {
		w.secrets = append(w.secrets, secret)
	}
	version, err := w.Vault.Write(w.ctx, w.SecretPath(instance), data)
	if err != nil {
		w.t.Fatal(err)
	}
	return version
}

// rotate puts a new credential into an instance's secret.
func (w *world) rotate(instance string) (version int, secret string) {
	w.t.Helper()
	version, secret, err := w.Rotate(w.ctx, instance)
	if err != nil {
		w.t.Fatal(err)
	}
	w.secrets = append(w.secrets, secret)
	return version, secret
}

// onDisk waits until the instance's file holds a secret.
func (w *world) onDisk(instance, secret string) {
	w.t.Helper()
	w.eventually("the secret is in the file of "+instance, func() bool {
		got, err := w.SecretOnDisk(w.ctx, instance)
		return err == nil && got == secret
	})
}

// holds demands that the instance's file holds a secret now.
func (w *world) holds(instance, secret string) {
	w.t.Helper()
	got, err := w.SecretOnDisk(w.ctx, instance)
	if err != nil || got != secret {
		w.t.Errorf("instance %s: not the expected secret on disk (%d bytes, %v)\n%s", instance, len(got), err, w.log())
	}
}

func (w *world) read(instance string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(w.File(instance))
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

func (w *world) attribute(instance, name string) string {
	w.t.Helper()
	value, err := container.Attribute(w.read(instance), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return value
}

// edits writes an instance's file as an editor does, and expects the bytes that are not ours to stay from then on.
func (w *world) edits(instance string, edit func([]byte) []byte) {
	w.t.Helper()
	document := edit(w.read(instance))
	w.foreign[instance] = foreign(document)
	if err := os.WriteFile(w.File(instance), document, 0o640); err != nil {
		w.t.Fatal(err)
	}
}

// blank empties the client secret, as a careless hand does.
func (w *world) blank(instance string) {
	w.t.Helper()
	secret := w.attribute(instance, "authIMSTAClientSecret")
	w.edits(instance, func(d []byte) []byte { return replaced(w.t, d, secret, "") })
}

// faults sets the fault switches of the stand-in; empty for none.
func (w *world) faults(switches string) {
	w.t.Helper()
	if err := w.SetFaults(w.ctx, switches); err != nil {
		w.t.Fatal(err)
	}
}

// runs counts events in the stand-in's log.
func (w *world) runs(event, kind string, modules ...string) int {
	w.t.Helper()
	runs, err := w.Runs()
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, r := range runs {
		if r.Event == event && r.Kind == kind && (modules == nil || slices.Equal(r.Modules, modules)) {
			n++
		}
	}
	return n
}

// ran demands a number of runs.
func (w *world) ran(want int, event, kind string, modules ...string) {
	w.t.Helper()
	if got := w.runs(event, kind, modules...); got != want {
		w.t.Errorf("%d runs of %s %v have an event %q, want %d\n%s", got, kind, modules, event, want, w.log())
	}
}

func (w *world) reconfigure(change func(*container.Options)) {
	w.t.Helper()
	if err := w.Reconfigure(w.ctx, change); err != nil {
		w.t.Fatal(err)
	}
	for _, name := range w.Instances {
		if w.foreign[name] == nil {
			w.foreign[name] = foreign(w.read(name))
		}
	}
}

func replaced(t *testing.T, document []byte, old, new string) []byte {
	t.Helper()
	if old == "" || !bytes.Contains(document, []byte(old)) {
		t.Fatalf("there is no %q to replace", old)
	}
	return bytes.Replace(document, []byte(old), []byte(new), 1)
}

// says demands that a text names everything that its reader needs.
func says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

// snapshot tells of every file that the daemon may write: name, inode, size, times.
func (w *world) snapshot() string {
	w.t.Helper()
	var b strings.Builder
	for _, root := range []string{w.StateDir(), w.Home} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			stat := info.Sys().(*syscall.Stat_t)
			fmt.Fprintf(&b, "%s %d %d %d.%d %d.%d\n", path, stat.Ino, stat.Size, stat.Mtim.Sec, stat.Mtim.Nsec, stat.Ctim.Sec, stat.Ctim.Nsec)
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
	}
	return b.String()
}

// isRoot tells whether mounts and other owners are to be had.
func isRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root")
	}
}

func (w *world) run(name string, args ...string) {
	w.t.Helper()
	if out, err := exec.CommandContext(w.ctx, name, args...).CombinedOutput(); err != nil {
		w.t.Fatal(errors.Join(err, errors.New(string(out))))
	}
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.Dir}, elem...)...)
}
