package e2e_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// doctorLimit is what doctor may take at most, whatever hangs.
const doctorLimit = 10 * time.Second

// Whatever hangs, doctor ends, says what did not answer, and tells of the rest. That it ends within its limit is the promise.
func TestDoctorEndsInTime(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	for _, x := range []struct {
		name, check, level, says string
		daemon                   bool
		hang                     func(w *world.World) (over func())
	}{
		{"Vault, asked by doctor", "login", "error", "given up", false, func(w *world.World) func() { return w.Proxy.Hang() }},
		{"Vault, asked by the daemon", "login", "error", "given up", true, func(w *world.World) func() { return w.Proxy.Hang() }},
		{"a mount", "instance_file", "error", "no answer in time", false, func(w *world.World) func() { return w.Hangs(filepath.Join(w.Home, "conf")) }},
		{"the mount of Campaign", "nlserver", "error", "no answer in time", false, func(w *world.World) func() { return w.Hangs(w.Home) }},
		{"the daemon", "daemon", "error", "does not answer", true, func(w *world.World) func() {
			daemon := w.Running
			w.Must(daemon.Signal(syscall.SIGSTOP))
			return func() { daemon.Signal(syscall.SIGCONT) }
		}},
		{"nlserver", "nlserver", "error", "did not end in time", false, func(w *world.World) func() {
			w.Faults(`{"on": ["help"], "hang": true, "ignore_sigterm": true}`)
			w.Must(exec.Command("chown", "-R", strconv.Itoa(campaignUser), w.Home).Run())
			return func() {}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{User: campaignUser})
			w.NewSecret("prod")
			if x.daemon {
				w.StartDaemon()
				w.InSync(1)
			}
			over := x.hang(w)
			defer over()
			var all findings
			took := 2 * doctorLimit
			for try := 0; try < 3 && took > doctorLimit; try++ { // again, where the machine was busy
				began := time.Now()
				all = doctorOnce(w, campaignUser)
				took = time.Since(began)
			}
			over()
			all.must(t, x.check, x.level, x.says)
			all.must(t, "hidepid", all.of("hidepid")[0].Level)
			if took > doctorLimit {
				t.Errorf("it took %v", took)
			}
			t.Logf("%v", took.Round(10*time.Millisecond))
			if n := w.Tokens(); !x.daemon && n != 0 {
				t.Errorf("%d tokens are left", n)
			}
		})
	}
}

// nlserver is missing, old, without the option, or not root's to run.
func TestDoctorOfNLServer(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	program := filepath.Join(w.Home, "bin", "nlserver")
	faults := func(switches string) {
		w.Faults(switches)
		w.Run("chown", "-R", strconv.Itoa(campaignUser), w.Home)
	}
	doctor(w, campaignUser).must(t, "nlserver", "ok", program+", build 9383")
	doctor(w, 0).must(t, "nlserver", "unseen", "by its own user only", "sudo -E -u '#41011'")
	if w.CountRuns("end", "help") == 0 { // there may be more: doctor is asked again where the machine is busy
		t.Errorf("nlserver was not asked for its options")
	}

	faults(`{"options": ["setimsauth"]}`)
	all := doctor(w, campaignUser)
	all.must(t, "nlserver", "warning", "does not list setimsoauth; setimsauth will be used")
	all.must(t, "nlserver", "warning", "older than 9383")
	faults(`{"options": []}`)
	doctor(w, campaignUser).must(t, "nlserver", "error", "lists no option")
	w.Reconfigured(func(o *container.Options) { o.Campaign = "command: setimsjwtauth" })
	w.Must(os.Chown(w.Config, campaignUser, campaignUser))
	all = doctor(w, campaignUser)
	all.must(t, "nlserver", "warning", "does not list setimsjwtauth")
	all.must(t, "jwt_ended", "warning", "campaign.command is setimsjwtauth")
	faults("")
	w.Must(os.Chmod(program, 0o644))
	doctor(w, campaignUser).must(t, "nlserver", "error", "is no program")
	w.Must(os.Rename(program, w.Path("nlserver")))
	doctor(w, campaignUser).must(t, "nlserver", "error", "no such file", "campaign.nlserver")
	w.Must(os.Rename(w.Path("nlserver"), program))
	w.Ran(0, "end", "set")
}

// Who may read no configuration and not ask the daemon hears of the machine, and who may see the rest.
func TestDoctorOfAStranger(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	const stranger = 41012
	w := world.New(t, container.Options{User: campaignUser})
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	all := doctor(w, stranger)
	all.must(t, "configuration", "unseen", "may not read the configuration", "sudo -E campaign-credsync doctor")
	if len(all.of("policy")) > 0 || len(all.of("hidepid")) != 1 {
		t.Errorf("it sees %v", all)
	}
	w.Must(os.Chmod(w.Config, 0o644))
	all = doctor(w, stranger)
	all.must(t, "daemon", "unseen", "may not ask the daemon", "join control_group")
	for _, f := range all { // else the exit status is not that of who may not ask
		if f.Level == "error" {
			t.Errorf("an error: %v", f)
		}
	}
	all.must(t, "nlserver", "unseen", "by its own user only")
	all.must(t, "login", "unseen", "sudo")
	all.must(t, "other_writer", "unseen", "sudo")
	all.must(t, "instance_file", "unseen", "may not read")
	all.must(t, "control_group", "unseen", "sudo")

	// A group that may ask for the status may not have Vault asked.
	w.Reconfigured(func(o *container.Options) { o.Settings += "\ncontrol_group: \"41011\"" })
	w.Must(os.Chown(w.Config, campaignUser, campaignUser))
	w.Must(os.Chmod(w.Config, 0o644))
	w.Stop()
	w.StartDaemon()
	w.InSync(1)
	c := exec.CommandContext(w.Ctx, world.Plain().Command, "--config", w.Config, "doctor")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger, Groups: []uint32{campaignUser}}}
	out, _ := c.Output()
	w.Printed.Write(out)
	if text := string(out); !strings.Contains(text, "ok       instances of prod: in sync with version 1\n") ||
		!strings.Contains(text, "unseen   login: this user may not have the daemon ask Vault\n") {
		t.Errorf("it prints %s", text)
	}
	for line := range strings.Lines(string(out)) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 80 && strings.Count(strings.TrimSpace(line), " ") > 2 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}

// What the daemon knows: instances that are not in sync, its warnings, somebody else who writes the file, no daemon at all.
func TestDoctorOfTheDaemon(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	doctor(w, 0).must(t, "daemon", "warning", "no daemon runs", "systemctl start")
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	all := doctor(w, 0)
	all.must(t, "daemon", "ok")
	all.must(t, "instances", "ok", "in sync with version 1")
	all.must(t, "other_writer", "ok")
	all.must(t, "core_dumps", "warning", "GODEBUG=clobberfree=1") // no unit started it
	// Root may lack the capability to do that to another user's process.
	w.Run("setpriv", "--reuid=41011", "--regid=41011", "--clear-groups", "prlimit", "--pid", strconv.Itoa(w.Running.PID()), "--core=4096:")
	doctor(w, 0).must(t, "core_dumps", "warning", "limit of core files")
	doctor(w, campaignUser).must(t, "core_dumps", "unseen", "clobberfree")

	w.Blank("prod")
	w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	for _, daemon := range []bool{true, false} {
		if !daemon {
			w.Stop()
		}
		doctor(w, 0).must(t, "other_writer", "warning", "1 times in the last 24 h", "authIMSTAClientSecret emptied", "file of 41011", "history --since 24h --instance prod")
	}
	w.StartDaemon()
	w.InSync(1)
	w.Must(os.WriteFile(w.Config+".bad", nil, 0o600))
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, []byte("bad: true"), 0o600))
	w.Signal(syscall.SIGHUP)
	w.AwaitStatus("the reload is rejected", func(s container.Status) bool { return len(s.Warnings) > 0 })
	w.Must(os.WriteFile(w.Config, good, 0o600))
	doctor(w, 0).must(t, "daemon", "warning", "reload_rejected: the configuration file was rejected")
	w.Must(w.Vault.Delete(w.Ctx, w.SecretPath("prod"), 1))
	w.Is("prod", "blocked/secret_deleted")
	doctor(w, 0).must(t, "instances", "error", "blocked, secret_deleted: ", "Write a new version, or undelete")
}

// The machine: what others see of nlserver's arguments, and what SELinux denies. Each is set up in a mount namespace.
func TestDoctorOfTheMachine(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	if out, err := exec.Command("unshare", "--mount", "--pid", "--fork", "mount", "-t", "proc", "proc", "/proc").CombinedOutput(); err != nil {
		skip.Unable(t, "needs namespaces: "+string(out))
	}
	w := world.New(t, container.Options{User: campaignUser})
	// within runs doctor where a shell has set something up before. $1 is a directory of the test's.
	within := func(setup string) findings {
		t.Helper()
		return doctor(w, 0, "unshare", "--mount", "--pid", "--fork", "sh", "-c", `set -e; D="$1"; shift; `+setup+`; exec "$@"`, "sh", w.Path("machine"))
	}
	const (
		selinux = `mkdir -p "$D"; mount -t tmpfs none "$D"; mkdir "$D/u" "$D/w"; mount -t tmpfs none /sys/fs; mkdir /sys/fs/selinux; echo 1 >/sys/fs/selinux/enforce; ` +
			`mount -t overlay none -o "lowerdir=/var/log,upperdir=$D/u,workdir=$D/w" /var/log; mkdir -p /var/log/audit; `
	)
	within("mount -t proc -o hidepid=2 proc /proc").must(t, "hidepid", "ok", "hidepid=")
	within("mount -t proc proc /proc").must(t, "hidepid", "warning", "mount -o remount,hidepid=2 /proc")

	within(selinux+"true").must(t, "selinux", "error", "no such file")
	within(selinux+"echo nothing >/var/log/audit/audit.log").must(t, "selinux", "ok", "enforces")
	within(selinux+`echo 'type=AVC msg=audit(1:1): avc:  denied  { write } for  pid=1 comm="nlserver" name="conf" tclass=dir permissive=0' >/var/log/audit/audit.log`).
		must(t, "selinux", "warning", "denied nlserver something 1 times", "ausearch -m avc -c nlserver")
}

// holdsInotify is set for a process that uses up inotify for the user that it names. It says so, and stays until its standard input ends.
const holdsInotify = "CREDSYNC_TEST_HOLDS_INOTIFY"

func init() {
	uid, err := strconv.Atoi(os.Getenv(holdsInotify))
	if err != nil {
		return
	}
	if err := syscall.Setuid(uid); err != nil {
		panic(err)
	}
	for err == nil {
		_, err = unix.InotifyInit1(unix.IN_CLOEXEC)
	}
	os.Stdout.WriteString("held\n")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// Inotify is used up by other programs of Campaign's user.
func TestDoctorOfInotify(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	const user = 41013
	w := world.New(t, container.Options{User: user})
	doctor(w, 0).must(t, "inotify", "ok", "user 41013 uses 0 of fs.inotify.max_user_instances")
	holder := exec.CommandContext(w.Ctx, os.Args[0])
	holder.Env = append(os.Environ(), holdsInotify+"="+strconv.Itoa(user))
	stay, err := holder.StdinPipe()
	w.Must(err)
	held, err := holder.StdoutPipe()
	w.Must(err)
	w.Must(holder.Start())
	defer holder.Wait()
	defer stay.Close()
	if line, err := bufio.NewReader(held).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	doctor(w, 0).must(t, "inotify", "warning", "fs.inotify.max_user_instances", "sysctl -w")
}

// A module of Campaign is in the daemon's control group, as when a restart of ours has forked it; what the daemon itself runs is none.
func TestDoctorOfTheControlGroup(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	doctor(w, 0).must(t, "control_group", "ok")
	group := ""
	for _, root := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		group = filepath.Join(root, filepath.Base(w.Dir)+".service")
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil && os.Mkdir(group, 0o755) == nil {
			break
		}
		group = ""
	}
	if group == "" {
		skip.Unable(t, "needs control groups")
	}
	w.Last = append(w.Last, func() { os.Remove(group) })
	enter := func(pid int) {
		w.Must(os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
	}
	enter(w.Running.PID())
	doctor(w, 0).must(t, "control_group", "ok", "holds the daemon only")
	w.Faults(`{"hang": true}`)
	w.NewSecret("prod")
	w.WaitsAt("hang") // a run of the daemon's, in its group
	doctor(w, 0).must(t, "control_group", "ok", "holds the daemon only")

	w.Run("cp", "/bin/sleep", w.Path("nlserver"))
	module := exec.Command(w.Path("nlserver"), "600")
	module.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.Must(module.Start())
	defer module.Wait()
	defer module.Process.Kill()
	enter(module.Process.Pid)
	doctor(w, campaignUser).must(t, "control_group", "warning", "nlserver (pid "+strconv.Itoa(module.Process.Pid)+") runs in the control group of "+filepath.Base(group),
		"campaign-credsync-activate.socket")
	w.Release()
	w.InSync(2)
}
