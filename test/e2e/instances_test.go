package e2e_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// One instance whose file is missing and some whose file is of no use do not hold up the one that is fine, nothing is
// written to them, and each is served as soon as its file is right.
func TestBrokenInstancesDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"fine", "gone", "cut", "empty", "pipe", "folder", "outside"}})
	whole, secrets := map[string][]byte{}, map[string]string{}
	broken := map[string]struct {
		make func(file string, whole []byte) error
		says []string
		why  string
	}{
		"gone":   {func(file string, _ []byte) error { return nil }, []string{"missing"}, "file_missing"},
		"cut":    {func(file string, d []byte) error { return os.WriteFile(file, d[:len(d)/2], 0o640) }, []string{"not well-formed"}, "file_damaged"},
		"empty":  {func(file string, d []byte) error { return os.WriteFile(file, nil, 0o640) }, []string{"not well-formed"}, "file_damaged"},
		"pipe":   {func(file string, d []byte) error { return unix.Mkfifo(file, 0o640) }, []string{"not a regular file"}, "file_unreadable"},
		"folder": {func(file string, d []byte) error { return os.Mkdir(file, 0o755) }, []string{"not a regular file"}, "file_unreadable"},
		"outside": {func(file string, d []byte) error {
			if err := os.WriteFile(w.Path("elsewhere.xml"), d, 0o640); err != nil {
				return err
			}
			return os.Symlink(w.Path("elsewhere.xml"), file)
		}, []string{"symbolic link", "config_file"}, "file_unreadable"},
	}
	for _, name := range w.Instances {
		_, secrets[name] = w.NewSecret(name)
		whole[name] = w.Read(name)
		if b, ok := broken[name]; ok {
			if err := os.Remove(w.File(name)); err != nil {
				t.Fatal(err)
			}
			if err := b.make(w.File(name), whole[name]); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.StartDaemon()
	w.Is("fine", "in_sync")
	w.Holds("fine", secrets["fine"])
	stdout, _, status := w.RunCommand("sync")
	if status != 1 {
		t.Errorf("sync ended with %d", status)
	}
	for name, b := range broken {
		w.Is(name, "degraded/"+b.why, append(b.says, w.File(name))...)
		world.Says(t, stdout, name+": degraded")
		level := "WARN" // somebody may be writing it
		if b.why == "file_unreadable" {
			level = "ERROR"
		}
		if n := strings.Count(w.Log(), "level="+level+" msg=\"instance file unusable, not writing\" instance="+name+" "); n != 1 {
			t.Errorf("%s: told %d times", name, n)
		}
	}
	w.Ran(1, "end", "set")
	if got, err := os.ReadFile(w.File("cut")); err != nil || !bytes.Equal(got, whole["cut"][:len(whole["cut"])/2]) {
		t.Errorf("the cut file was changed, %v", err)
	}
	if got, err := os.ReadFile(w.Path("elsewhere.xml")); err != nil || !bytes.Equal(got, whole["outside"]) {
		t.Errorf("the file outside was changed, %v", err)
	}
	// The fine one is guarded all the same.
	w.Blank("fine")
	w.OnDisk("fine", secrets["fine"])

	for name := range broken {
		if err := os.RemoveAll(w.File(name)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.File(name), whole[name], 0o640); err != nil {
			t.Fatal(err)
		}
	}
	w.InSync(1)
	for _, name := range w.Instances {
		w.Holds(name, secrets[name])
	}
	w.Ran(len(w.Instances), "end", "set")
}

// A file that goes missing or breaks while the daemon runs is never created nor repaired: it holds the database login.
func TestFileThatBreaksLaterIsLeftAlone(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	whole := w.Read("prod")
	if err := os.Remove(w.File("prod")); err != nil {
		t.Fatal(err)
	}
	w.Is("prod", "degraded/file_missing", "missing", w.File("prod"))
	_, second := w.NewSecret("prod")
	w.Pass()
	if _, err := os.Stat(w.File("prod")); !os.IsNotExist(err) {
		t.Fatalf("the file was created: %v", err)
	}
	for _, damaged := range [][]byte{whole[:len(whole)-30], nil, []byte("<serverconf>"), append(bytes.Clone(whole), "<x/>"...)} {
		if err := os.WriteFile(w.File("prod"), damaged, 0o640); err != nil {
			t.Fatal(err)
		}
		w.Pass()
		w.Is("prod", "degraded/file_damaged", "not well-formed", w.File("prod"))
		if !bytes.Equal(w.Read("prod"), damaged) {
			t.Error("the damaged file was changed")
		}
	}
	w.Ran(1, "end", "set")
	if err := os.WriteFile(w.File("prod"), whole, 0o640); err != nil {
		t.Fatal(err)
	}
	w.InSync(2)
	w.Holds("prod", second)
}

// Instances that are applied together share one reload, and one secret that serves several is polled once.
func TestInstancesShareReloadAndPolls(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{
		Instances: []string{"a", "b", "c"},
		Campaign:  "activate: {restart: [web, pipelined]}",
	})
	w.Faults(`{"write_delay": "10m"}`)
	for _, name := range w.Instances {
		w.NewSecret(name)
	}
	w.StartDaemon()
	w.Eventually("nlserver runs for all", func() bool { return w.CountRuns("waiting", "set") == 3 })
	w.Release()
	w.InSync(1)
	w.Ran(3, "end", "set")
	w.Ran(1, "end", "reload")
	w.Ran(1, "end", "restart", "web")
	for _, name := range w.Instances {
		w.Ran(1, "end", "restart", "pipelined@"+name)
	}
}

// An instance may be known by several names of one secret.
func TestSharedSecretIsReadOnce(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"a", "b"}})
	_, secret := w.NewSecret("a")
	text, err := os.ReadFile(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	text = world.Replaced(t, text, w.SecretPath("b"), w.SecretPath("a"))
	if err := os.WriteFile(w.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.StartDaemon()
	w.InSync(1)
	w.Holds("a", secret)
	w.Holds("b", secret)
	if n := vaulttest.Count(w.Proxy.Requests(), vaulttest.Request.DataRead); n != 1 {
		t.Errorf("the secret was read %d times", n)
	}
	w.Idle(w.SecretPath("a"))
}
