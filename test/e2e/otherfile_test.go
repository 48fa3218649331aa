package e2e_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// otherFile is a world whose instance is in sync, and beside its file another one, with a credential that somebody else set.
type otherFile struct {
	*world.World
	path   string
	whole  []byte
	secret string // in the instance's own file
	unrun  func() // demands that nlserver was not run since it came to be
}

func withOtherFile(t *testing.T) otherFile {
	t.Helper()
	w := world.New(t, container.Options{})
	w.Secrets = append(w.Secrets, handSecret)
	w.SetByHandAs(container.Credential(handSecret)) // whose ids are Vault's, for adopt
	o := otherFile{World: w, path: w.Path("nl6", "conf", "other.xml")}
	o.whole = append(w.Read("prod"), "<!-- the other -->\n"...)
	w.Must(os.WriteFile(o.path, o.whole, 0o640))
	w.Conf = append(w.Conf, "other.xml")
	_, o.secret = w.NewSecret("prod")
	w.StartDaemon()
	w.Is("prod", "held")
	w.Exits(0, "in_sync", "sync")
	o.unrun = unrun(w)
	return o
}

// named has config_file name a file.
func (o otherFile) named(path string) {
	o.T.Helper()
	o.Reconfigured(func(c *container.Options) { c.Extra = map[string]string{"prod": "config_file: " + path} })
}

func (o otherFile) restarted() {
	o.T.Helper()
	o.Stop()
	o.StartDaemon()
}

func (o otherFile) shows(path string, want []byte) {
	o.T.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		o.T.Fatalf("%s is not as it was: %v\n%s\n%s", path, err, world.FirstDifference(want, got), o.Log())
	}
}

// What was applied to one file never gets into another: when config_file changes, all is as at a first start, which is said once. What the
// other file holds is guarded from then on, and only that.
func TestAnotherFileIsAsAtAFirstStart(t *testing.T) {
	t.Parallel()
	for name, takesEffect := range map[string]func(o otherFile){
		"restart": otherFile.restarted,
		"kill -9": func(o otherFile) { o.Kill(); o.StartDaemon() },
		"SIGHUP":  func(o otherFile) { o.HangUp() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := withOtherFile(t)
			o.In(t)
			own := o.Read("prod")
			o.named(o.path)
			takesEffect(o)
			o.Is("prod", "held", "run adopt")
			checked(o.World)
			o.shows(o.path, o.whole)
			o.Exits(3, "held", "diff")
			o.Logged("level=WARN", "config_file is another one than before", "path="+o.path, "before="+o.File("prod"), "run adopt")
			o.unrun()

			o.Exits(0, "", "adopt")
			o.InSync(1)
			o.unrun()
			o.drifts()
			o.restarted()
			o.InSync(1)
			o.Ran(2, "end", "set")
			o.unrun = unrun(o.World) // the drift may have been activated, where the machine is busy
			if n := strings.Count(o.Log(), "config_file is another one"); n != 1 {
				t.Errorf("it is told %d times\n%s", n, o.Log())
			}
			o.shows(o.File("prod"), own)

			o.named(o.File("prod")) // and back
			takesEffect(o)
			o.Is("prod", "held")
			checked(o.World)
			o.shows(o.File("prod"), own)
			o.shows(o.path, o.whole)
			o.unrun()
		})
	}
}

// drifts empties the secret in the other file, and waits until it is as it was.
func (o otherFile) drifts() {
	o.T.Helper()
	secret, err := container.Attribute(o.whole, "authIMSTAClientSecret")
	o.Must(err)
	o.Must(os.WriteFile(o.path, world.Replaced(o.T, o.whole, secret, ""), 0o640))
	o.Eventually("the other file's own secret is put back", func() bool {
		got, err := os.ReadFile(o.path)
		return err == nil && bytes.Equal(got, o.whole)
	})
}

// A pause is of the instance, whatever its file.
func TestAnotherFileWhilePaused(t *testing.T) {
	t.Parallel()
	o := withOtherFile(t)
	own := o.Read("prod")
	o.Exits(0, "", "pause", "--for", "1h")
	o.named(o.path)
	o.HangUp()
	o.Is("prod", "paused")
	checked(o.World)
	o.restarted()
	o.Is("prod", "paused")
	checked(o.World)
	o.shows(o.path, o.whole)
	o.Exits(0, "", "resume")
	o.Is("prod", "held")
	o.drifts()
	o.shows(o.File("prod"), own)
	o.unrun()
}

// Without a daemon, too: diff tells it, adopt takes what is there, sync applies to it, and nothing else touches either file.
func TestAnotherFileWithoutADaemon(t *testing.T) {
	t.Parallel()
	o := withOtherFile(t)
	o.Stop()
	own := o.Read("prod")
	o.named(o.path)
	o.Exits(3, "held", "diff")
	o.Exits(0, "", "pause", "--for", "1h")
	o.Exits(0, "", "resume")
	o.shows(o.path, o.whole)
	o.Exits(0, "", "adopt")
	o.StartDaemon()
	o.InSync(1)
	o.unrun()
	o.drifts()
	o.Stop()
	o.shows(o.File("prod"), own)
	o.Ran(2, "end", "set")

	// The first file is named again; nlserver writes it, as somebody orders that.
	o.named(o.File("prod"))
	o.Exits(0, "in_sync", "sync")
	o.Holds("prod", o.secret)
	o.shows(o.path, o.whole)
}

// The instance's file moves, and its old name becomes a link to the other one: sync applies to that, and the first one stays as it is.
func TestAnotherFileIsAppliedToByOrder(t *testing.T) {
	t.Parallel()
	o := withOtherFile(t)
	o.Stop()
	own, moved := o.Read("prod"), o.Path("nl6", "conf", "moved.xml")
	o.Conf = append(o.Conf, "moved.xml")
	o.Must(os.Rename(o.File("prod"), moved))
	o.Must(os.Symlink("other.xml", o.File("prod")))
	o.Foreign["prod"] = world.ForeignBytes(o.whole)
	o.named(o.path)
	o.Exits(0, "in_sync", "sync")
	o.Holds("prod", o.secret)
	o.StartDaemon()
	o.InSync(1)
	o.Blank("prod")
	o.OnDisk("prod", o.secret)
	o.shows(moved, own)
}

// A daemon is killed while nlserver writes the one file. What was saved of it is neither put into the other, which somebody else damaged, nor
// lost: a person finds it, with whose it is. An nlserver that outlived the daemon is waited for.
func TestAnotherFileAfterAKillInTheMiddle(t *testing.T) {
	t.Parallel()
	o := withOtherFile(t)
	own := o.Read("prod")
	o.Faults(`{"hang_after_truncate": true, "times": 1}`)
	o.NewSecret("prod")
	o.Signal(syscall.SIGUSR1)
	o.WaitsAt("hang_after_truncate")
	o.Kill()
	half := o.whole[:len(o.whole)/2]
	o.Must(os.WriteFile(o.path, half, 0o640))
	o.named(o.path)
	o.StartDaemon()
	o.Is("prod", "degraded/recovering")
	o.EndLeftRuns()
	o.Signal(syscall.SIGUSR1)

	aside := filepath.Join(o.StateDir(), "prod.before.1")
	o.Logged("level=ERROR", "is set aside", "path="+o.path, "before="+o.File("prod"), "file="+aside, "remedy=")
	o.Is("prod", "degraded/file_damaged")
	o.restarted()
	o.Is("prod", "degraded/file_damaged")
	checked(o.World)
	o.shows(o.path, half)
	o.shows(aside, own)
	o.shows(aside+".path", []byte(o.File("prod")))
	if n := strings.Count(o.Log(), "is set aside"); n != 1 {
		t.Errorf("it is told %d times\n%s", n, o.Log())
	}
	found, _, _ := o.RunCommand("doctor", "--json") // for whoever did not read the log
	world.Says(t, found, aside+" has "+o.File("prod")+" as it was", "remove "+aside)

	o.Must(os.WriteFile(o.path, o.whole, 0o640))
	o.Is("prod", "held")
	o.drifts()
	o.Must(os.WriteFile(o.File("prod"), own, 0o640)) // as the remedy says
	o.Must(os.Remove(aside))
	o.Must(os.Remove(aside + ".path"))
	found, _, _ = o.RunCommand("doctor", "--json")
	world.Says(t, found, "waits for a person")
	o.Holds("prod", o.secret)
}

// Two instances exchange their files, and get them back.
func TestInstancesExchangeTheirFiles(t *testing.T) {
	t.Parallel()
	for name, takesEffect := range map[string]func(w *world.World){
		"restart": func(w *world.World) { w.Stop(); w.StartDaemon() },
		"SIGHUP":  func(w *world.World) { w.HangUp() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Instances: []string{"prod", "stage"}})
			was := map[string][]byte{"prod": w.Read("prod"), "stage": w.Read("stage")}
			for _, files := range []map[string]string{{"prod": "stage", "stage": "prod"}, {"prod": "prod", "stage": "stage"}} {
				w.Reconfigured(func(o *container.Options) {
					o.Extra = map[string]string{}
					for instance, file := range files {
						o.Extra[instance] = "config_file: " + w.File(file)
					}
				})
				takesEffect(w)
				for _, name := range w.Instances {
					w.Is(name, "held")
				}
				checked(w)
				for _, name := range w.Instances {
					if !bytes.Equal(w.Read(name), was[name]) {
						t.Fatalf("the file of %s changed: %s\n%s", name, world.FirstDifference(was[name], w.Read(name)), w.Log())
					}
					w.Holds(name, secrets[name])
				}
			}
			w.Ran(2, "end", "set")
		})
	}
}
