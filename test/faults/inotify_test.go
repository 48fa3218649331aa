package faults_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// conf/ is put aside and another one takes its place, as an upgrade does.
func TestDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	conf := filepath.Join(w.Home, "conf")
	w.Run("cp", "-a", conf, conf+".new")
	w.Must(os.Rename(conf, conf+".old"))
	w.Must(os.Rename(conf+".new", conf))
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.Is("prod", "in_sync")
}

// conf/ is away for a while: nothing is made in its place, no nlserver is run, and what was changed meanwhile is put right when
// it is back, as is what is changed later.
func TestDirectoryIsAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// There is where the directory is to be found while it is away.
		there      func(*world.World) string
		away, back func(w *world.World, conf, there string)
	}{
		{
			"renamed", func(w *world.World) string { return filepath.Join(w.Home, "elsewhere") },
			func(w *world.World, conf, there string) { w.Must(os.Rename(conf, there)) },
			func(w *world.World, conf, there string) { w.Must(os.Rename(there, conf)) },
		},
		{
			"unmounted", func(w *world.World) string { return w.Path("volume") },
			func(w *world.World, conf, _ string) {
				w.Eventually("it is not busy", func() bool { return unix.Unmount(conf, 0) == nil })
			},
			func(w *world.World, conf, there string) { w.Run("mount", "--bind", there, conf) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			conf, there := filepath.Dir(w.File("prod")), c.there(w)
			if c.name == "unmounted" {
				world.NeedsRoot(t)
				w.Must(os.Rename(conf, there))
				w.Must(os.Mkdir(conf, 0o755))
				w.Run("mount", "--bind", there, conf)
				w.Last = append(w.Last, func() { unix.Unmount(conf, unix.MNT_DETACH) })
			}
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)

			c.away(w, conf, there)
			w.Is("prod", "degraded/file_missing", "missing")
			w.Pass()
			w.Is("prod", "degraded", "missing")
			if found, err := os.ReadDir(conf); len(found) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is %v in its place, %v", found, err)
			}
			file := filepath.Join(there, filepath.Base(w.File("prod")))
			document, err := os.ReadFile(file)
			w.Must(err)
			document = append(withValue(document, "authIMSTAClientSecret", ""), "<!-- meanwhile -->\n"...)
			w.Must(os.WriteFile(file, document, 0o640))
			w.Foreign["prod"] = world.ForeignBytes(document)
			c.back(w, conf, there)
			w.OnDisk("prod", secret)
			w.InSync(1)
			w.Blank("prod")
			w.OnDisk("prod", secret)
			w.InSync(1)
			w.Ran(1, "start", "set")
		})
	}
}

// The queue of events overflows while the daemon stands still, and the one event that matters is not in it.
func TestEventsOverflow(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	var events int
	if _, err := fmt.Sscan(string(text), &events); err != nil {
		t.Fatal(err)
	}
	if events > 1<<20 {
		skip.Unable(t, "fs.inotify.max_queued_events is too high to be reached")
	}
	w, secrets := world.Started(t, container.Options{})
	noise := [2]string{filepath.Join(w.Home, "conf", "noise-1"), filepath.Join(w.Home, "conf", "noise-2")}
	for _, path := range noise {
		w.Must(os.WriteFile(path, nil, 0o600))
	}
	w.Pass()
	w.Signal(syscall.SIGSTOP)
	w.Eventually("it stands still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.Running.PID()))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	for i := range 2 * events { // in turns, as two events in a row that are the same are one
		w.Must(os.Chmod(noise[i%2], 0o600))
	}
	time.Sleep(3 * time.Second) // since the last look that saw it right
	w.Blank("prod")
	w.Signal(syscall.SIGCONT)
	w.OnDisk("prod", secrets["prod"])
	w.Eventually("the processes are told, as nobody knows how old the drift is", func() bool { return w.CountRuns("end", "reload") == 2 })
	w.Eventually("the overflow is told of", func() bool { return strings.Contains(w.Log(), "file events were lost") })
	for _, path := range noise {
		w.Must(os.Remove(path))
	}
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.InSync(1)
	w.Ran(1, "start", "set")
}

// The limits of inotify are used up: the file is looked at every so often, and drift is put back all the same. The daemon
// runs in a user namespace, which has limits of its own.
func TestInotifyIsUsedUp(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	limited := "echo 0 >/proc/sys/user/max_inotify_watches"
	if out, err := exec.Command("unshare", "-U", "-r", "sh", "-c", limited).CombinedOutput(); err != nil {
		skip.Unable(t, "no user namespaces: "+string(out))
	}
	for _, limit := range []string{"instances", "watches"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			programs := world.Plain()
			setting := "/proc/sys/user/max_inotify_" + limit
			wrapper := filepath.Join(t.TempDir(), "limited")
			script := fmt.Sprintf("#!/bin/sh\nexec unshare -U -r sh -c 'echo 0 >%s; exec %s \"$@\"' sh \"$@\"\n",
				setting, programs.Daemon)
			if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			programs.Daemon = wrapper
			w, secrets := world.Started(t, container.Options{Programs: programs})
			w.Blank("prod")
			w.OnDisk("prod", secrets["prod"])
			w.Blank("prod")
			w.OnDisk("prod", secrets["prod"])
			w.InSync(1)
			reloads := w.CountRuns("end", "reload")
			w.Eventually("the processes are told, as nobody knows how old the drift is", func() bool {
				time.Sleep(3 * time.Second)
				w.Blank("prod") // fresh all the same where the daemon, on a busy machine, looked at everything meanwhile
				w.OnDisk("prod", secrets["prod"])
				w.Pass()
				return w.CountRuns("end", "reload") > reloads
			})
			w.InSync(1)
			log := w.Running.Log()
			world.Says(t, log, "raise fs.inotify.max_user_"+limit)
			// Said once by each of two watches: that of instances and that of login files.
			if n := strings.Count(log, `msg="no file events, `); n != 2 {
				t.Errorf("%d warnings\n%s", n, log)
			}
			if *full && limit == "instances" { // they are tried for again every minute
				w.Run("nsenter", "-U", "-t", fmt.Sprint(w.Running.PID()), "sh", "-c", "echo 100 >"+setting)
				deadline := time.Now().Add(2 * time.Minute)
				for ; !strings.Contains(w.Log(), "file events are back"); time.Sleep(time.Second) {
					if time.Now().After(deadline) {
						t.Fatalf("there are no events again\n%s", w.Log())
					}
				}
				w.Blank("prod")
				w.OnDisk("prod", secrets["prod"])
			}
			w.Ran(1, "start", "set")
		})
	}
}

// conf/ is an overlay, as in a container's image: the file is replaced like any other, also while it is only in the lower
// layer.
func TestDirectoryIsAnOverlay(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	for _, lower := range []bool{false, true} {
		name := map[bool]string{false: "mounted before the first apply", true: "drift in the lower layer"}[lower]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Settings: manyReverts})
			conf := filepath.Dir(w.File("prod"))
			_, secret := w.NewSecret("prod")
			if lower {
				w.StartDaemon()
				w.InSync(1)
				w.Stop()
				w.Blank("prod")
			}
			for _, dir := range []string{"upper", "work"} {
				w.Must(os.Mkdir(w.Path(dir), 0o755))
			}
			w.Must(os.Rename(conf, w.Path("lower")))
			w.Must(os.Mkdir(conf, 0o755))
			layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", w.Path("lower"), w.Path("upper"), w.Path("work"))
			if out, err := exec.Command("mount", "-t", "overlay", "overlay", "-o", layers, conf).CombinedOutput(); err != nil {
				w.Must(os.Remove(conf))
				w.Must(os.Rename(w.Path("lower"), conf))
				skip.Unable(t, "no overlay here: "+string(out))
			}
			w.Last = append(w.Last, func() { unix.Unmount(conf, unix.MNT_DETACH) })
			untouched, err := os.ReadFile(w.Path("lower", "config-prod.xml"))
			w.Must(err)
			w.StartDaemon()
			w.OnDisk("prod", secret)
			w.InSync(1)
			w.Blank("prod")
			w.OnDisk("prod", secret)
			c := newCrowd(w, 4, 0)
			c.start()
			c.edited(200)
			c.judge(nil)
			w.OnDisk("prod", secret)
			w.InSync(1)
			if lower {
				w.Ran(1, "start", "set")
			}
			if now, err := os.ReadFile(w.Path("lower", "config-prod.xml")); err != nil || string(now) != string(untouched) {
				t.Errorf("the lower layer changed, %v", err)
			}
			if strings.Contains(w.Log(), "not supported here") {
				t.Errorf("it did without leases, or without the exchange\n%s", w.Log())
			}
		})
	}
}

// No event ever tells of a change: it came by another name of the file, in a directory that nobody watches. The file is
// looked at all the same, every few seconds.
func TestChangeWithoutAnEvent(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	for range 2 {
		document := withValue(w.Read("prod"), "authIMSTAClientSecret", "")
		name := w.Path("another-name")
		w.Must(os.Link(w.File("prod"), name))
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		w.Must(err)
		w.Must(os.Remove(name)) // the file has one name, and this descriptor remembers the other
		_, err = f.WriteAt(document, 0)
		w.Must(errors.Join(err, f.Truncate(int64(len(document))), f.Close()))
		w.OnDisk("prod", secrets["prod"])
		w.InSync(1)
	}
	w.Ran(1, "start", "set")
}
