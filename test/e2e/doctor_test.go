package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// campaignUser is whom Campaign and the daemon belong to in tests of doctor.
const campaignUser = 41011

// finding is a line of doctor --json.
type finding struct{ Check, Level, Instance, Found, Remedy string }

func (f finding) String() string {
	return fmt.Sprintf("%s %s(%s): %s -> %s", f.Level, f.Check, f.Instance, f.Found, f.Remedy)
}

type findings []finding

// of are those of a check.
func (all findings) of(check string) (some findings) {
	for _, f := range all {
		if f.Check == check {
			some = append(some, f)
		}
	}
	return some
}

// must demands that a check found something of that level that says everything.
func (all findings) must(t *testing.T, check, level string, says ...string) {
	t.Helper()
	for _, f := range all.of(check) {
		fits := f.Level == level
		for _, text := range says {
			fits = fits && strings.Contains(f.Found+" -> "+f.Remedy, text)
		}
		if fits {
			return
		}
	}
	t.Errorf("%s is not %s, saying %q: %v", check, level, says, all.of(check))
}

// doctor is doctorOnce where nothing hangs: on a busy machine its ten seconds may be too few, and then it is asked again.
func doctor(w *world.World, uid uint32, wrap ...string) (all findings) {
	w.T.Helper()
	w.Eventually("doctor has the time that it needs", func() bool {
		all = doctorOnce(w, uid, wrap...)
		return !slices.ContainsFunc(all, func(f finding) bool {
			return strings.Contains(f.Found, "context deadline exceeded") || strings.Contains(f.Found, "no answer in time") ||
				strings.Contains(f.Found, "did not end in time")
		})
	})
	return all
}

// doctorOnce runs doctor --json as a user, within what the wrapping command sets up, such as unshare; it demands the exit status that the
// findings ask for.
func doctorOnce(w *world.World, uid uint32, wrap ...string) findings {
	w.T.Helper()
	args := append(wrap, world.Plain().Command, "--config", w.Config, "doctor", "--json")
	c := exec.CommandContext(w.Ctx, args[0], args[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Run()
	w.Printed.Write(append(out.Bytes(), errs.Bytes()...))
	var printed struct{ Findings findings }
	if err := json.Unmarshal(out.Bytes(), &printed); err != nil || len(printed.Findings) == 0 || errs.Len() > 0 {
		w.T.Fatalf("doctor prints %q, %q: %v", &out, &errs, err)
	}
	want := 0
	for _, f := range printed.Findings {
		switch {
		case f.Check == "" || f.Found == "" || f.Level != "ok" && f.Level != "error" && f.Level != "warning" && f.Level != "unseen":
			w.T.Errorf("a finding says nothing: %v", f)
		case f.Level == "error":
			want = 1
		case f.Level == "unseen" && strings.Contains(f.Found, "may not ask the daemon") && want != 1:
			want = 4
		case f.Level == "warning" && want == 0:
			want = 3
		}
	}
	if got := c.ProcessState.ExitCode(); got != want {
		w.T.Errorf("doctor ended with %d, want %d: %v", got, want, printed.Findings)
	}
	return printed.Findings
}

// Each thing about a file that is wrong is found, and that it was mended, with and without a daemon, as root and as Campaign's user.
func TestDoctorOfFiles(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser, Campaign: "activate: {restart: [pipelined]}"})
	w.NewSecret("prod")
	conf := filepath.Dir(w.File("prod"))
	w.Must(os.Chmod(conf, 0o755))
	mode := func(path string, bad, good os.FileMode) (spoil, mend func()) {
		return func() { w.Must(os.Chmod(path, bad)) }, func() { w.Must(os.Chmod(path, good)) }
	}
	content := func(change func([]byte) []byte) (spoil, mend func()) {
		was := w.Read("prod")
		return func() { w.Must(os.WriteFile(w.File("prod"), change(was), 0o640)) }, func() { w.Must(os.WriteFile(w.File("prod"), was, 0o640)) }
	}
	type fault struct {
		check, level string
		says         []string
		spoil, mend  func()
	}
	fix := func(check, level string, spoil, mend func(), says ...string) fault {
		return fault{check, level, says, spoil, mend}
	}
	both := func(spoil, mend func()) func(check, level string, says ...string) fault {
		return func(check, level string, says ...string) fault { return fix(check, level, spoil, mend, says...) }
	}
	for _, x := range []fault{
		both(mode(conf, 0o777, 0o755))("conf_directory", "error", "mode 0777", "chmod o-w "+conf),
		both(mode(conf, 0o775, 0o755))("conf_directory", "warning", "mode 0775", "chmod g-w "+conf),
		fix("conf_directory", "warning", func() { w.Must(os.Chown(conf, 0, campaignUser)) }, func() { w.Must(os.Chown(conf, campaignUser, campaignUser)) },
			"belongs to root", "chown 41011 "+conf),
		both(mode(w.File("prod"), 0o644, 0o640))("instance_file", "warning", "everybody may read", "chmod o-r "+w.File("prod")),
		both(mode(w.File("prod"), 0o642, 0o640))("instance_file", "warning", "everybody may write", "chmod o-w"),
		fix("instance_file", "warning", func() { w.Must(os.Chown(w.File("prod"), 0, campaignUser)) }, func() { w.Must(os.Chown(w.File("prod"), campaignUser, campaignUser)) },
			"belongs to root", "chown 41011"),
		fix("instance_file", "error", func() { w.Must(os.Rename(w.File("prod"), w.Path("aside"))) }, func() { w.Must(os.Rename(w.Path("aside"), w.File("prod"))) },
			"no such file"),
		both(content(func(was []byte) []byte { return was[:len(was)/2] }))("instance_file", "error", "repair it"),
		both(content(func(was []byte) []byte { return bytes.Replace(was, []byte(`authType="imsJwtToken"`), nil, 1) }))(
			"pipelined", "warning", "nlserver restart pipelined@prod"),
		both(content(func(was []byte) []byte {
			return bytes.Replace(was, []byte("<ims "), []byte(`<ims authIMSTAPrivateKey="@a2V5" `), 2) // the first one is a comment
		}))("jwt_ended", "warning", "private key"),
		both(mode(w.SecretID, 0o644, 0o600))("login_files", "warning", "everybody may read", "chmod o-rwx "+w.SecretID),
	} {
		t.Run(x.check, func(t *testing.T) {
			w.In(t)
			for _, user := range []uint32{0, campaignUser} {
				doctor(w, user).must(t, x.check, "ok")
			}
			x.spoil()
			for _, user := range []uint32{0, campaignUser} {
				doctor(w, user).must(t, x.check, x.level, x.says...)
			}
			x.mend()
			doctor(w, 0).must(t, x.check, "ok")
		})
	}
	w.In(t)
	before := w.Snapshot()
	doctor(w, 0) // as Campaign's user it runs nlserver, which keeps a log
	if after := w.Snapshot(); after != before {
		t.Errorf("doctor wrote something:\n%s\n%s", before, after)
	}
}

// The state directory: in memory, open to others, somebody else's.
func TestDoctorOfStateDir(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	doctor(w, 0).must(t, "state_dir", "ok", "not there yet")
	w.Must(os.Mkdir(w.StateDir(), 0o700))
	doctor(w, 0).must(t, "state_dir", "error", "belongs to root", "chown -R 41011")
	w.Must(os.Chown(w.StateDir(), campaignUser, campaignUser))
	doctor(w, campaignUser).must(t, "state_dir", "ok")
	w.Must(os.Chmod(w.StateDir(), 0o755))
	doctor(w, campaignUser).must(t, "state_dir", "warning", "chmod 0700")
	w.Must(os.Chmod(w.StateDir(), 0o700))
	w.Run("mount", "-t", "tmpfs", "-o", "mode=0700,uid=41011", "tmpfs", w.StateDir())
	defer unix.Unmount(w.StateDir(), unix.MNT_DETACH)
	doctor(w, campaignUser).must(t, "state_dir", "warning", "is in memory")
}
