package world

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

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
)

// One picks an instance; one that is not there has no state.
func One(s container.Status, instance string) container.InstanceStatus {
	for _, in := range s.Instances {
		if in.Name == instance {
			return in
		}
	}
	return container.InstanceStatus{}
}

// WriteSecret puts data into an instance's secret.
func (w *World) WriteSecret(instance string, data map[string]any) (version int) {
	w.T.Helper()
	if secret, ok := data["client_secret"].(string); ok && len(secret) > 8 && !slices.Contains(w.Secrets, secret) {
		w.Secrets = append(w.Secrets, secret)
	}
	version, err := w.Vault.Write(w.Ctx, w.SecretPath(instance), data)
	if err != nil {
		w.T.Fatal(err)
	}
	return version
}

// NewSecret puts a new credential into an instance's secret.
func (w *World) NewSecret(instance string) (version int, secret string) {
	w.T.Helper()
	version, secret, err := w.Rotate(w.Ctx, instance)
	if err != nil {
		w.T.Fatal(err)
	}
	w.Secrets = append(w.Secrets, secret)
	return version, secret
}

// OnDisk waits until the instance's file holds a secret. The step that wrote it may not be over; see Applied and Reverted.
func (w *World) OnDisk(instance, secret string) {
	w.T.Helper()
	w.Eventually("the secret is in the file of "+instance, func() bool {
		got, err := w.SecretOnDisk(w.Ctx, instance)
		return err == nil && got == secret
	})
}

// Holds demands that the instance's file holds a secret now.
func (w *World) Holds(instance, secret string) {
	w.T.Helper()
	got, err := w.SecretOnDisk(w.Ctx, instance)
	if err != nil || got != secret {
		w.T.Errorf("instance %s: not the expected secret on disk (%d bytes, %v)\n%s", instance, len(got), err, w.Log())
	}
}

func (w *World) Read(instance string) []byte {
	w.T.Helper()
	data, err := os.ReadFile(w.File(instance))
	if err != nil {
		w.T.Fatal(err)
	}
	return data
}

func (w *World) Attribute(instance, name string) string {
	w.T.Helper()
	value, err := container.Attribute(w.Read(instance), name)
	if err != nil {
		w.T.Fatal(err)
	}
	return value
}

// Edits writes an instance's file as an editor does, and expects the bytes that are not ours to stay from then on.
func (w *World) Edits(instance string, edit func([]byte) []byte) {
	w.T.Helper()
	document := edit(w.Read(instance))
	w.Foreign[instance] = ForeignBytes(document)
	if err := os.WriteFile(w.File(instance), document, 0o640); err != nil {
		w.T.Fatal(err)
	}
}

// Blank empties the client secret, as a careless hand does.
func (w *World) Blank(instance string) {
	w.T.Helper()
	secret := w.Attribute(instance, "authIMSTAClientSecret")
	w.Edits(instance, func(d []byte) []byte { return Replaced(w.T, d, secret, "") })
}

// Faults sets the fault switches of the stand-in; empty for none.
func (w *World) Faults(switches string) {
	w.T.Helper()
	if err := w.SetFaults(w.Ctx, switches); err != nil {
		w.T.Fatal(err)
	}
}

// Release lets runs of the stand-in that wait go on; see container.Release.
func (w *World) Release() {
	w.T.Helper()
	w.Must(w.Container.Release())
}

// CountRuns counts events in the stand-in's log.
func (w *World) CountRuns(event, kind string, modules ...string) int {
	w.T.Helper()
	runs, err := w.Runs()
	if err != nil {
		w.T.Fatal(err)
	}
	n := 0
	for _, r := range runs {
		if r.Event == event && r.Kind == kind && (modules == nil || slices.Equal(r.Modules, modules)) {
			n++
		}
	}
	return n
}

// Ran demands a number of runs.
func (w *World) Ran(want int, event, kind string, modules ...string) {
	w.T.Helper()
	if got := w.CountRuns(event, kind, modules...); got != want {
		w.T.Errorf("%d runs of %s %v have an event %q, want %d\n%s", got, kind, modules, event, want, w.Log())
	}
}

func (w *World) Reconfigured(change func(*container.Options)) {
	w.T.Helper()
	if err := w.Reconfigure(w.Ctx, change); err != nil {
		w.T.Fatal(err)
	}
	for _, name := range w.Instances {
		if w.Foreign[name] == nil {
			w.Foreign[name] = ForeignBytes(w.Read(name))
		}
	}
}

func Replaced(t *testing.T, document []byte, old, new string) []byte {
	t.Helper()
	if old == "" || !bytes.Contains(document, []byte(old)) {
		t.Fatalf("there is no %q to replace", old)
	}
	return bytes.Replace(document, []byte(old), []byte(new), 1)
}

// Says demands that a text names everything that its reader needs.
func Says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

// Snapshot tells of every file that the daemon may write: name, inode, size, times.
func (w *World) Snapshot() string {
	w.T.Helper()
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
			w.T.Fatal(err)
		}
	}
	return b.String()
}

// NeedsRoot tells whether mounts and other owners are to be had.
func NeedsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root")
	}
}

func (w *World) Run(name string, args ...string) {
	w.T.Helper()
	if out, err := exec.CommandContext(w.Ctx, name, args...).CombinedOutput(); err != nil {
		w.T.Fatal(errors.Join(err, errors.New(string(out))))
	}
}

func (w *World) Path(elem ...string) string {
	return filepath.Join(append([]string{w.Dir}, elem...)...)
}

// WaitsAt waits until a run of the stand-in says that it waits at a fault.
func (w *World) WaitsAt(at string) container.Run {
	w.T.Helper()
	var found container.Run
	w.Eventually("a run waits at "+at, func() bool {
		runs, err := w.Runs()
		if err != nil {
			return false
		}
		i := slices.IndexFunc(runs, func(r container.Run) bool { return r.Event == "waiting" && r.At == at })
		if i >= 0 {
			found = runs[i]
		}
		return i >= 0
	})
	return found
}

// Managed are the attributes that an apply of the stand-in leaves, as they are in a file.
func (w *World) Managed(instance string) map[string]string {
	w.T.Helper()
	values := map[string]string{}
	for _, name := range []string{"authIMSTAClientId", "authIMSTAId", "authIMSTAClientSecret", "authIMSTAPrivateKey"} {
		values[name] = w.Attribute(instance, name)
	}
	return values
}

// SetByHand has nlserver set a credential, as people did before there was this daemon. Its ids are not those of Rotate.
func (w *World) SetByHand(secret string) {
	w.T.Helper()
	w.Secrets = append(w.Secrets, secret)
	c := container.Credential(secret)
	c["client_id"], c["technical_account_id"] = "ffffffffffffffffffffffffffffffff", "FFFF@techacct.adobe.com"
	w.SetByHandAs(c)
}

// SetByHandAs has nlserver set this credential.
func (w *World) SetByHandAs(c map[string]any) {
	w.T.Helper()
	w.Run("sh", "-c", `. "$1/env.sh" && "$1/bin/nlserver" config -instance:prod "$2"`, "sh", w.Home,
		fmt.Sprintf("-setimsoauth:%s/%s/%s/%s", c["ims_org_id"], c["client_id"], c["technical_account_id"], c["client_secret"]))
}
