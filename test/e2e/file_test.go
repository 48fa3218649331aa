package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

const hurry = syscall.SIGUSR1

// volume is a file that others write, and the daemon of a world that has it as its source.
type volume struct {
	*world.World
	file    string
	version int  // of the set of files that the kubelet put in place
	late    bool // a writer paused for longer than it meant to, as the machine is busy: it may be taken for done, or for dead
}

// newVolume is without any Vault.
func newVolume(t *testing.T, options container.Options, extra string) *volume {
	t.Helper()
	w := world.New(t, options)
	v := &volume{World: w, file: filepath.Join(mounted(t), "credential.json")}
	v.configure(extra)
	return v
}

// mounted is a directory that is none of the daemon's, and may hold secrets.
func mounted(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "credsync-mounted-")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o755) // also for a daemon that is not root
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (v *volume) configure(extra string) {
	v.T.Helper()
	v.Reconfigured(func(o *container.Options) {
		o.NoVault = true
		o.Secrets, o.Extra = map[string]string{}, map[string]string{}
		for _, name := range v.Instances {
			o.Secrets[name], o.Extra[name] = "source: file, file: "+v.file, extra
		}
	})
}

// content is a credential as a file has it, with more keys.
func (v *volume) content(secret string, more map[string]any) []byte {
	v.T.Helper()
	v.Secrets = append(v.Secrets, secret)
	data := container.Credential(secret)
	for key, value := range more {
		data[key] = value
	}
	text, err := json.Marshal(data)
	v.Must(err)
	return text
}

func (v *volume) owned(path string, content []byte) {
	v.T.Helper()
	v.Must(os.WriteFile(path, content, 0o600))
}

// renamed puts a content in place as Vault Agent does.
func (v *volume) renamed(content []byte) {
	v.T.Helper()
	v.owned(v.file+".4213", content)
	v.Must(os.Rename(v.file+".4213", v.file))
}

// kubelet puts a content in place as its AtomicWriter does: a directory with a set of files, ..data turned to it, the
// old one removed.
func (v *volume) kubelet(content []byte) {
	v.T.Helper()
	dir := filepath.Dir(v.file)
	v.version++
	set := fmt.Sprintf("..2026_11_26_12_00_%02d.4213", v.version)
	v.Must(os.Mkdir(filepath.Join(dir, set), 0o755))
	v.owned(filepath.Join(dir, set, filepath.Base(v.file)), content)
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	v.Must(os.Symlink(set, filepath.Join(dir, "..data_tmp")))
	v.Must(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if old == "" {
		v.Must(os.Symlink(filepath.Join("..data", filepath.Base(v.file)), v.file))
		return
	}
	v.Must(os.RemoveAll(filepath.Join(dir, old)))
}

// inPieces writes in place, without truncating first where the mode says so.
func (v *volume) inPieces(content []byte, mode int, pause time.Duration) {
	v.T.Helper()
	f, err := os.OpenFile(v.file, os.O_WRONLY|mode, 0)
	v.Must(err)
	last := time.Now()
	for len(content) > 0 {
		n := min(50, len(content))
		_, err := f.Write(content[:n])
		v.Must(err)
		v.late, last = v.late || time.Since(last) > 80*time.Millisecond, time.Now()
		content = content[n:]
		time.Sleep(pause)
	}
	v.Must(f.Close())
}

func secretOf(n int) string { return fmt.Sprintf("p8e-%032d", n) }

// However a new content is put in place, it is applied at once and once, drift is put back meanwhile, and no Vault is needed.
func TestFileRotates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		put  func(v *volume, content []byte)
	}{
		{"kubelet", (*volume).kubelet},
		{"Vault Agent", (*volume).renamed},
		{"in place", func(v *volume, content []byte) { v.owned(v.file, content) }},
		{"in pieces", func(v *volume, content []byte) { v.inPieces(content, os.O_TRUNC, 30*time.Millisecond) }},
		{"in pieces over the old one", func(v *volume, content []byte) { v.inPieces(content, 0, 30*time.Millisecond) }},
		{"emptied, and written when Vault has answered", func(v *volume, content []byte) {
			began := time.Now()
			v.Must(os.Truncate(v.file, 0))
			time.Sleep(700 * time.Millisecond)
			v.owned(v.file, content)
			v.late = v.late || time.Since(began) > 1900*time.Millisecond
		}},
		{"deleted and created", func(v *volume, content []byte) {
			began := time.Now()
			v.Must(os.Remove(v.file))
			time.Sleep(300 * time.Millisecond)
			v.owned(v.file, content)
			v.late = v.late || time.Since(began) > 1900*time.Millisecond
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for tries := 1; !rotates(t, c.name, c.put); tries++ { // again, as then runs and alarms cannot be counted
				if tries == 10 {
					t.Fatal("no writer kept up: this machine is too busy")
				}
			}
		})
	}
}

// rotates has a new content put in place three times. It reports whether the writers kept up.
func rotates(t *testing.T, name string, put func(v *volume, content []byte)) (keptUp bool) {
	v := newVolume(t, container.Options{Settings: hourly, Instances: []string{"a", "b"}}, "")
	if name == "kubelet" {
		v.kubelet(v.content(secretOf(1), nil))
	} else {
		v.owned(v.file, v.content(secretOf(1), nil))
	}
	v.Proxy.Requests()
	v.StartDaemon()
	s := v.AwaitStatus("in sync", func(s container.Status) bool { return s.Is("in_sync") })
	if s.Vault.Used {
		t.Error("Vault is used, though nobody needs it")
	}
	v.Holds("b", secretOf(1))
	last := world.One(s, "a").AppliedVersion
	for n := 2; n <= 4; n++ {
		v.Blank("a")
		put(v, v.content(secretOf(n), nil))
		began := time.Now()
		v.OnDisk("a", secretOf(n))
		v.OnDisk("b", secretOf(n))
		t.Logf("on disk %v after it was written", time.Since(began))
		s := v.AwaitStatus("in sync", func(s container.Status) bool { return s.Is("in_sync") && world.One(s, "a").AppliedVersion != last })
		last = world.One(s, "a").AppliedVersion
		v.Blank("b")
		v.OnDisk("b", secretOf(n))
	}
	if v.late {
		v.Stop()
		return false
	}
	v.Ran(8, "end", "set")
	if strings.Contains(v.Log(), "level=ERROR") || strings.Contains(v.Log(), "no file events") {
		t.Errorf("something was alarmed for\n%s", v.Log())
	}
	if requests := v.Proxy.Requests(); len(requests) > 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
	stdout, _, status := v.RunCommand("status")
	if status != 0 || !strings.Contains(stdout, "vault: not used") {
		t.Errorf("status ends with %d: %s", status, stdout)
	}
	return true
}

// Whatever stands in place of the file: what is applied stays and is guarded, it is told once, and what is right again is
// applied as soon as it is there.
func TestFileIsOfNoUse(t *testing.T) {
	t.Parallel()
	v := newVolume(t, container.Options{Settings: hourly}, "")
	good := v.content(secretOf(1), nil)
	v.renamed(good)
	v.StartDaemon()
	v.Is("prod", "in_sync")
	for n, c := range []struct {
		name, state, says string
		make              func()
	}{
		{"missing", "blocked/secret_missing", "no file at", func() {}},
		{"half", "blocked/secret_malformed", "not a whole JSON object", func() { v.owned(v.file, good[:len(good)/2]) }},
		{"a newline too many", "blocked/secret_malformed", "client_secret ends in a newline", func() { v.owned(v.file, v.content(secretOf(2)+"\n", nil)) }},
		{"a number", "blocked/secret_malformed", "client_secret is not a string", func() { v.owned(v.file, v.content(secretOf(2), map[string]any{"client_secret": 5})) }},
		{"huge", "blocked/secret_malformed", "larger than", func() { v.renamed(make([]byte, 8<<20)) }},
		{"a version that is none", "blocked/secret_malformed", "whole number", func() { v.owned(v.file, v.content(secretOf(2), map[string]any{"version": "2"})) }},
		{"FIFO", "blocked/secret_malformed", "not a regular file", func() { v.Must(unix.Mkfifo(v.file, 0o600)) }},
		{"loop", "degraded/source_unreadable", "symbolic links", func() { v.Must(os.Symlink("credential.json", v.file)) }},
	} {
		v.Must(os.RemoveAll(v.file))
		c.make()
		v.Is("prod", c.state, c.says, v.file)
		v.Blank("prod")
		v.OnDisk("prod", secretOf(1))
		v.Signal(hurry)
		v.Pass()
		if told := strings.Count(v.Log(), "level=ERROR"); told != n+1 {
			t.Fatalf("%s: %d errors were told, want %d\n%s", c.name, told, n+1, v.Log())
		}
		if c.name == "half" {
			v.Exits(1, "keeps what is applied: "+v.file+" is not a whole JSON object", "sync", "--dry-run")
			v.Exits(3, "the secret is refused: "+v.file+" is not a whole JSON object", "diff")
		}
		v.Must(os.RemoveAll(v.file))
		v.renamed(good)
		v.Is("prod", "in_sync")
	}
	v.Ran(1, "end", "set")
	v.renamed(v.content(secretOf(3), nil))
	v.OnDisk("prod", secretOf(3))
	v.Must(os.RemoveAll(filepath.Dir(v.file)))
	v.Is("prod", "blocked/secret_missing", "no file at")
	v.Must(os.Mkdir(filepath.Dir(v.file), 0o755))
	v.renamed(v.content(secretOf(4), nil))
	v.OnDisk("prod", secretOf(4))
}

// A file that its writer counts has an order: a lower number is kept out unless that is allowed. The same number with
// another content is applied.
func TestFileIsCounted(t *testing.T) {
	t.Parallel()
	v := newVolume(t, container.Options{Settings: hourly}, "fields: {client_secret: secret}")
	write := func(version, n int) {
		v.renamed(v.content(secretOf(n), map[string]any{"version": version, "client_secret": nil, "secret": secretOf(n)}))
	}
	write(7, 1)
	// As a person does it, without a daemon.
	v.Exits(0, "prod: in_sync, version 7 applied", "sync")
	v.StartDaemon()
	v.InSync(7)
	v.Holds("prod", secretOf(1))
	v.Ran(1, "end", "set")
	write(8, 2)
	v.OnDisk("prod", secretOf(2))
	v.InSync(8)
	write(7, 1)
	v.Is("prod", "blocked/secret_rollback", "goes back from version 8", "allow_rollback")
	v.Holds("prod", secretOf(2))
	v.configure("allow_rollback: true, fields: {client_secret: secret}")
	v.HangUp()
	v.OnDisk("prod", secretOf(1))
	v.InSync(7)
	write(7, 3)
	v.OnDisk("prod", secretOf(3))
	write(9, 3)
	v.InSync(9)
	v.Ran(4, "end", "set")
	write(10, 4)
	v.OnDisk("prod", secretOf(4))

	// diff sees what a daemon that is not there has not done.
	v.InSync(10)
	v.Stop()
	write(11, 5)
	v.Exits(3, "changes with version 11", "diff")
	v.Exits(3, "would apply version 11 with nlserver", "sync", "--dry-run")
}

// From Vault to a file and back, by a reload each: sources of different kinds have no order between them.
func TestFromVaultToAFileAndBack(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{Settings: hourly})
	v := &volume{World: w, file: filepath.Join(mounted(t), "credential.json")}
	v.renamed(v.content(secretOf(1), map[string]any{"version": 1}))
	v.configure("")
	v.HangUp()
	v.OnDisk("prod", secretOf(1))
	v.InSync(1)
	v.Eventually("the token is revoked", func() bool { return v.Tokens() == 0 })
	w.Reconfigured(func(o *container.Options) { o.NoVault, o.Secrets, o.Extra = false, nil, nil })
	v.HangUp()
	v.OnDisk("prod", secrets["prod"])
	v.InSync(1)
	if strings.Contains(v.Log(), "goes back") {
		t.Errorf("something goes back\n%s", v.Log())
	}
}

// A file that the daemon's user may not read says nothing about the secret; what everybody may read is told of once.
func TestFileRights(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	v := newVolume(t, container.Options{Settings: hourly, User: 65534}, "")
	v.renamed(v.content(secretOf(1), nil))
	v.Must(os.Chmod(v.file, 0o644))
	v.Must(os.Chown(v.Config, 65534, 65534))
	v.StartDaemon()
	v.Is("prod", "in_sync")
	v.Must(os.Chmod(v.file, 0o600))
	v.Is("prod", "degraded/source_unreadable", "permission denied", v.file, "readable for that user")
	v.Blank("prod")
	v.OnDisk("prod", secretOf(1))
	v.Must(os.Chown(v.file, 0, 65534))
	v.Must(os.Chmod(v.file, 0o640))
	v.Is("prod", "in_sync")
	if n := strings.Count(v.Log(), "chmod o-rw"); n != 1 {
		t.Errorf("told %d times\n%s", n, v.Log())
	}
	v.Ran(1, "end", "set")
}

// Where inotify does not help, as in a directory that may be passed and not read, or on NFS, the polls find what is new.
func TestFileThatCannotBeWatched(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	v := newVolume(t, container.Options{User: 65534}, "")
	put := func(n int) {
		v.renamed(v.content(secretOf(n), nil))
		v.Must(os.Chown(v.file, 65534, 65534))
	}
	put(1)
	v.Must(os.Chmod(filepath.Dir(v.file), 0o711))
	v.Must(os.Chown(v.Config, 65534, 65534))
	v.StartDaemon()
	v.Is("prod", "in_sync")
	for n := 2; n <= 3; n++ {
		put(n)
		v.OnDisk("prod", secretOf(n))
	}
	if n := strings.Count(v.Log(), `msg="no file events, the file is checked at an interval instead" path=`+v.file); n != 1 {
		t.Errorf("told %d times\n%s", n, v.Log())
	}
}
