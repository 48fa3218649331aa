//go:build systemd

package systemd

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
)

// TestImageOnCampaigns builds Dockerfile.campaign on an image that is no more than its name.
func TestImageOnCampaigns(t *testing.T) {
	requireTools(t)
	context := t.TempDir()
	put(t, filepath.Join(context, "nlserver"), "Campaign's", 0o755)
	put(t, filepath.Join(context, "Dockerfile"), "FROM scratch\nCOPY nlserver "+campaignHome+"/bin/nlserver\nUSER 4711:4711\nENTRYPOINT [\"/start\", \"campaign\"]\n", 0o644)
	campaign := buildDockerfile(t, filepath.Join(context, "Dockerfile"), context)
	want := unpack(t, campaign, "built")
	archive := makeImage(t)
	got := unpack(t, buildDockerfile(t, "packaging/container/Dockerfile.campaign", context,
		"CAMPAIGN_IMAGE=oci-archive:"+campaign+":built", "CREDSYNC_IMAGE=oci-archive:"+archive), "built")
	files := got.files(t)
	for path, is := range want.files(t) {
		if files[path] != is {
			t.Errorf("%s of Campaign's image is %.80s", path, files[path])
		}
	}
	const program = "/usr/bin/campaign-credsync"
	if files[program] == "" || files[program] != unpack(t, archive, "1.0.0").files(t)[program] {
		t.Errorf("%s is %.80s", program, files[program])
	}
	if fmt.Sprint(got.spec["process"]) != fmt.Sprint(want.spec["process"]) {
		t.Errorf("it runs %v, and Campaign's image %v", got.spec["process"], want.spec["process"])
	}
}

// asCampaign is process 1 of Campaign's container, as Campaign's user, with Campaign's home and the lines of docs/container.md.
const asCampaign = `cd %[1]s && . ./env.sh
STANDIN_MODULES="web pipelined@prod" nlserver --standin-watchdog %[1]s &
%[2]strap 'kill $(jobs -p)' TERM
wait
`

const (
	serveActivation = `rm -f /run/campaign/activate.sock
(umask 077; exec systemd-socket-activate --accept --inetd --listen=/run/campaign/activate.sock campaign-credsync activate) &
`
	startDaemon = `campaign-credsync run &
`
)

// beside runs a program in a root file system like that of Campaign's container, but of its own, and in that one's other namespaces but
// the mounts: a second container of the same pod. $1 is the root file system, $2 the program, $3 the user, and mounts follow.
const beside = `set -e; system=$1 program=$2 user=$3; shift 3
mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$system,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t proc proc /mnt/root/proc
cp "$program" /mnt/root/usr/bin/campaign-credsync
for pair; do mkdir -p "/mnt/root${pair#*:}"; mount --bind "${pair%%:*}" "/mnt/root${pair#*:}"; done
cd /mnt/root
pivot_root . mnt
umount --lazy /mnt
exec setpriv --reuid="$user" --regid="$user" --clear-groups campaign-credsync run
`

// pod is Campaign's container, and what one beside it needs.
type pod struct {
	*machine
	volumes
	program string // the image's
	mounts  []string
	modules map[string]string // their processes
	secret  string
}

// startPod starts Campaign's container, with these lines in its entry point, and has a credential wait. activate is campaign.activate of
// the daemon's configuration.
func startPod(t *testing.T, activate, lines string) *pod {
	t.Helper()
	doc := read(t, filepath.Join(repository(t), "docs/container.md"))
	for line := range strings.Lines(lines) {
		if !strings.Contains(doc, line) {
			t.Errorf("docs/container.md has another line than %s", line)
		}
	}
	p := &pod{
		volumes: newVolumes(t, ", activate: {restart: [web, pipelined]"+activate+"}", `{"modules":"child"}`),
		program: filepath.Join(unpack(t, makeImage(t), "1.0.0").dir, "rootfs/usr/bin/campaign-credsync"),
		modules: map[string]string{"web": "", "pipelined@prod": ""}, secret: "p8e-" + (rand.Text() + rand.Text())[:32],
	}
	p.handOver(t)
	p.volumes.write(t, 1, p.secret)
	run := t.TempDir()
	if err := os.Chown(run, neolaneID, neolaneID); err != nil {
		t.Fatal(err)
	}
	p.mounts = []string{p.home + ":" + campaignHome, p.etc + ":/etc/campaign-credsync", run + ":/run/campaign", p.state + ":" + stateDir}
	name, user := machineName(), fmt.Sprint(neolaneID)
	arguments := []string{"--directory=" + rootFileSystem(t), "--volatile=overlay", "--settings=no", "--machine=" + name,
		"--bind-ro=" + p.program + ":/usr/bin/campaign-credsync"}
	for _, m := range p.mounts {
		arguments = append(arguments, "--bind="+m)
	}
	p.machine = launch(t, name, syscall.SIGTERM, append(arguments, "--", "setpriv", "--reuid="+user, "--regid="+user, "--clear-groups",
		"bash", "-c", fmt.Sprintf(asCampaign, campaignHome, lines))...)
	p.user = neolaneID
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Campaign's container:\n%s", p.console)
		}
	})
	p.awaitModules(t)
	return p
}

// awaitModules waits until each module runs in another process than before.
func (p *pod) awaitModules(t *testing.T) {
	t.Helper()
	for name, before := range p.modules {
		p.modules[name] = p.awaitModule(t, p.machine, name, before)
	}
}

// namespace is one of a process in Campaign's container.
func (p *pod) namespace(t *testing.T, pid, kind string) string {
	t.Helper()
	link, err := os.Readlink(p.path("/proc/" + pid + "/ns/" + kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// outlived demands that the modules run in Campaign's container, in the same processes as before.
func (p *pod) outlived(t *testing.T) {
	t.Helper()
	for name, pid := range p.modules {
		if now := p.awaitModule(t, p.machine, name, ""); now != pid {
			t.Errorf("%s was %s and is %s", name, pid, now)
		}
		for _, kind := range []string{"mnt", "cgroup"} {
			if p.namespace(t, pid, kind) != p.namespace(t, "1", kind) {
				t.Errorf("%s is not in Campaign's container: namespace %s", name, kind)
			}
		}
	}
}

// isQuiet demands that a daemon said no more than that it reverted drift.
func (p *pod) isQuiet(t *testing.T, said string) {
	t.Helper()
	if strings.Contains(said, p.secret) {
		t.Errorf("the log shows the secret: %s", said)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") && !strings.Contains(line, "drift reverted") {
			t.Errorf("said: %s", line)
		}
	}
}

func isInSync(s container.InstanceStatus) bool { return s.State == "in_sync" && s.AppliedVersion == 1 }

// startSidecar starts the daemon beside Campaign's container, in a control group of its own.
func (p *pod) startSidecar(t *testing.T) *machine {
	t.Helper()
	s := &machine{user: neolaneID, console: &console{}, ended: make(chan struct{})}
	args := append([]string{"-c", enterGroups, "sh"}, controlGroups(t, machineName())...)
	args = append(args, "--", "nsenter", "--target", fmt.Sprint(p.leader), "--pid", "--ipc", "--net", "--uts", "--",
		"unshare", "--mount", "--cgroup", "--propagation=private", "sh", "-c", beside, "sh", rootFileSystem(t), p.program, fmt.Sprint(neolaneID))
	nsenter := exec.Command("sh", append(args, p.mounts...)...)
	nsenter.Stdout, nsenter.Stderr = s.console, s.console
	nsenter.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := nsenter.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		nsenter.Wait()
		s.status = nsenter.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		if !s.hasEnded() {
			syscall.Kill(s.leader, syscall.SIGKILL)
			<-s.ended
		}
	})
	await(t, "the daemon of the sidecar", patience, func() bool {
		if s.hasEnded() {
			t.Fatalf("the sidecar does not start:\n%s", s.console)
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", nsenter.Process.Pid))
		fmt.Sscan(string(children), &s.leader)
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.leader))
		return strings.HasPrefix(string(name), "campaign-cred")
	})
	return s
}

// TestImageBesideCampaign has the daemon in a sidecar of Campaign's container, from the same image: with the volumes, the process ids and
// the activation socket of that container.
func TestImageBesideCampaign(t *testing.T) {
	requireTools(t)
	p := startPod(t, ", via: socket, socket: /run/campaign/activate.sock", serveActivation)
	daemon := p.startSidecar(t)
	if status := daemon.awaitStatus(t, "in sync", isInSync); !status.Proven {
		t.Errorf("modules run again, and the status is %+v", status)
	}
	p.awaitModules(t)
	p.blanks(t)

	file := read(t, p.instanceFile())
	syscall.Kill(daemon.leader, syscall.SIGKILL)
	await(t, "the end of the sidecar", patience, daemon.hasEnded)
	p.outlived(t)
	again := p.startSidecar(t)
	again.awaitStatus(t, "in sync", isInSync)
	if read(t, p.instanceFile()) != file {
		t.Error("a restart of the sidecar applies anew")
	}
	syscall.Kill(again.leader, syscall.SIGTERM)
	await(t, "the end of the sidecar", patience, again.hasEnded)
	if again.status != 0 {
		t.Errorf("SIGTERM ends it with %d", again.status)
	}
	p.outlived(t)
	p.isQuiet(t, daemon.console.String()+again.console.String())
}

// TestImageBesideCampaignDirectly has no activation socket: a restarted module moves into the sidecar, and is not called proven.
func TestImageBesideCampaignDirectly(t *testing.T) {
	requireTools(t)
	p := startPod(t, "", "")
	daemon := p.startSidecar(t)
	if status := daemon.awaitStatus(t, "in sync", isInSync); status.Proven {
		t.Errorf("modules run in the sidecar, and the status is %+v", status)
	}
	p.awaitModules(t)
	for name, pid := range p.modules {
		if p.namespace(t, pid, "mnt") == p.namespace(t, "1", "mnt") {
			t.Errorf("%s stays in Campaign's container", name)
		}
		want := fmt.Sprintf(`"restart %s" reason="module %s runs as process %s in the control group of the daemon"`, name, name, pid)
		if said := daemon.console.String(); !strings.Contains(said, want) {
			t.Errorf("want %s in: %s", want, said)
		}
	}
	p.killModules(t)
}

// killModules ends those that are not in Campaign's container, and hold its control group.
func (p *pod) killModules(t *testing.T) {
	t.Helper()
	for _, pid := range p.modules {
		p.run(t, "sh", "-c", "kill -9 "+pid)
	}
}

// TestImageWithinCampaign has the daemon in Campaign's container, started by its entry point.
func TestImageWithinCampaign(t *testing.T) {
	requireTools(t)
	p := startPod(t, "", startDaemon)
	if status := p.awaitStatus(t, "in sync", isInSync); !status.Proven {
		t.Errorf("modules run again, and the status is %+v", status)
	}
	p.blanks(t)
	p.modules = map[string]string{"web": p.awaitModule(t, p.machine, "web", ""), "pipelined@prod": p.awaitModule(t, p.machine, "pipelined@prod", "")}
	p.run(t, "sh", "-c", "kill -9 $(grep -lx campaign-credsy /proc/[0-9]*/comm | cut -d/ -f3)")
	await(t, "no daemon", patience, func() bool { return p.try(t, "campaign-credsync", "status").status == 1 })
	p.outlived(t)
	p.isQuiet(t, p.console.String())
}

// awaitModule waits until a module of the stand-in runs in another process than before, and returns it.
func (v volumes) awaitModule(t *testing.T, m *machine, name, before string) (pid string) {
	t.Helper()
	await(t, "module "+name, patience, func() bool {
		if m.hasEnded() {
			t.Fatalf("Campaign's container has ended:\n%s", m.console)
		}
		text, _ := os.ReadFile(filepath.Join(v.home, "var/standin/modules", name+".pid"))
		pid = string(text)
		_, err := os.Stat(m.path("/proc/" + pid))
		return pid != "" && pid != before && err == nil
	})
	return pid
}
