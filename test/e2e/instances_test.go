package e2e_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"campaign-credsync/test/container"
)

// One instance whose file is missing and some whose file is of no use do not hold up the one that is fine, nothing is
// written to them, and each is served as soon as its file is right.
func TestBrokenInstancesDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{Instances: []string{"fine", "gone", "cut", "empty", "pipe", "folder", "outside"}})
	whole, secrets := map[string][]byte{}, map[string]string{}
	broken := map[string]struct {
		make func(file string, whole []byte) error
		says []string
	}{
		"gone":   {func(file string, _ []byte) error { return nil }, []string{"missing"}},
		"cut":    {func(file string, d []byte) error { return os.WriteFile(file, d[:len(d)/2], 0o640) }, []string{"not well-formed"}},
		"empty":  {func(file string, d []byte) error { return os.WriteFile(file, nil, 0o640) }, []string{"not well-formed"}},
		"pipe":   {func(file string, d []byte) error { return mkfifo(file) }, []string{"not a regular file"}},
		"folder": {func(file string, d []byte) error { return os.Mkdir(file, 0o755) }, []string{"not a regular file"}},
		"outside": {func(file string, d []byte) error {
			if err := os.WriteFile(w.path("elsewhere.xml"), d, 0o640); err != nil {
				return err
			}
			return os.Symlink(w.path("elsewhere.xml"), file)
		}, []string{"symbolic link", "config_file"}},
	}
	for _, name := range w.Instances {
		_, secrets[name] = w.rotate(name)
		whole[name] = w.read(name)
		if b, ok := broken[name]; ok {
			if err := os.Remove(w.File(name)); err != nil {
				t.Fatal(err)
			}
			if err := b.make(w.File(name), whole[name]); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.start()
	w.is("fine", "in_sync")
	w.holds("fine", secrets["fine"])
	stdout, _, status := w.command("sync")
	if status != 1 {
		t.Errorf("sync ended with %d", status)
	}
	for name, b := range broken {
		w.is(name, "degraded", append(b.says, w.File(name))...)
		says(t, stdout, name+": degraded")
		if n := strings.Count(w.log(), "level=ERROR msg=\"configuration file is out of order, nothing is written\" instance="+name+" "); n != 1 {
			t.Errorf("%s: told %d times", name, n)
		}
	}
	w.ran(1, "end", "set")
	if got, err := os.ReadFile(w.File("cut")); err != nil || !bytes.Equal(got, whole["cut"][:len(whole["cut"])/2]) {
		t.Errorf("the cut file was changed, %v", err)
	}
	if got, err := os.ReadFile(w.path("elsewhere.xml")); err != nil || !bytes.Equal(got, whole["outside"]) {
		t.Errorf("the file outside was changed, %v", err)
	}
	// The fine one is guarded all the same.
	w.blank("fine")
	w.onDisk("fine", secrets["fine"])

	for name := range broken {
		if err := os.RemoveAll(w.File(name)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.File(name), whole[name], 0o640); err != nil {
			t.Fatal(err)
		}
	}
	w.inSync(1)
	for _, name := range w.Instances {
		w.holds(name, secrets[name])
	}
	w.ran(len(w.Instances), "end", "set")
}

// A file that goes missing or breaks while the daemon runs is never created nor repaired: it holds the database login.
func TestFileThatBreaksLaterIsLeftAlone(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{})
	whole := w.read("prod")
	if err := os.Remove(w.File("prod")); err != nil {
		t.Fatal(err)
	}
	w.is("prod", "degraded", "missing", w.File("prod"))
	_, second := w.rotate("prod")
	w.pass()
	if _, err := os.Stat(w.File("prod")); !os.IsNotExist(err) {
		t.Fatalf("the file was created: %v", err)
	}
	for _, damaged := range [][]byte{whole[:len(whole)-30], nil, []byte("<serverconf>"), append(bytes.Clone(whole), "<x/>"...)} {
		if err := os.WriteFile(w.File("prod"), damaged, 0o640); err != nil {
			t.Fatal(err)
		}
		w.pass()
		w.is("prod", "degraded", "not well-formed", w.File("prod"))
		if !bytes.Equal(w.read("prod"), damaged) {
			t.Error("the damaged file was changed")
		}
	}
	w.ran(1, "end", "set")
	if err := os.WriteFile(w.File("prod"), whole, 0o640); err != nil {
		t.Fatal(err)
	}
	w.inSync(2)
	w.holds("prod", second)
}

// Instances that are applied together share one reload, and one secret that serves several is polled once.
func TestInstancesShareReloadAndPolls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{
		Instances: []string{"a", "b", "c"},
		Campaign:  "activate: {restart: [web, pipelined]}",
	})
	w.faults(`{"write_delay": "500ms"}`)
	for _, name := range w.Instances {
		w.rotate(name)
	}
	w.start()
	w.inSync(1)
	w.ran(3, "end", "set")
	w.ran(1, "end", "reload")
	w.ran(1, "end", "restart", "web")
	for _, name := range w.Instances {
		w.ran(1, "end", "restart", "pipelined@"+name)
	}
}

// An instance may be known by several names of one secret.
func TestSharedSecretIsReadOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{Instances: []string{"a", "b"}})
	_, secret := w.rotate("a")
	text, err := os.ReadFile(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	text = replaced(t, text, w.SecretPath("b"), w.SecretPath("a"))
	if err := os.WriteFile(w.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.inSync(1)
	w.holds("a", secret)
	w.holds("b", secret)
	reads := 0
	for _, r := range w.Proxy.Requests() {
		if r.DataRead() {
			reads++
		}
	}
	if reads != 1 {
		t.Errorf("the secret was read %d times", reads)
	}
	w.idle(w.SecretPath("a"))
}
