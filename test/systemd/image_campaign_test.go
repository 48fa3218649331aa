//go:build systemd

package systemd

import (
	"bytes"
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

// asCampaign is process 1 of Campaign's container, as Campaign's user: its modules, and the activation socket without systemd.
const asCampaign = `cd %[1]s && . ./env.sh
STANDIN_MODULES="web pipelined@prod" nlserver --standin-watchdog %[1]s &
rm -f /run/campaign/activate.sock
(umask 077; exec systemd-socket-activate --accept --inetd --listen=/run/campaign/activate.sock campaign-credsync activate) &
trap 'kill $(jobs -p)' TERM
wait
`

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

// startSidecar starts the daemon beside Campaign's container.
func (m *machine) startSidecar(t *testing.T, program string, mounts []string) *machine {
	t.Helper()
	s := &machine{user: neolaneID, console: &console{}, ended: make(chan struct{})}
	args := []string{"--target", fmt.Sprint(m.leader), "--pid", "--ipc", "--net", "--uts", "--", "unshare", "--mount", "--propagation=private",
		"sh", "-c", beside, "sh", rootFileSystem(t), program, fmt.Sprint(neolaneID)}
	nsenter := exec.Command("nsenter", append(args, mounts...)...)
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
	await(t, "the daemon of the sidecar", patience, func() bool {
		if s.hasEnded() {
			t.Fatalf("the sidecar does not start:\n%s", s.console)
		}
		s.leader = 0
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
	v := newVolumes(t, ", activate: {restart: [web, pipelined], via: socket, socket: /run/campaign/activate.sock}", `{"modules":"child"}`)
	v.handOver(t)
	run := t.TempDir()
	if err := os.Chown(run, neolaneID, neolaneID); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(unpack(t, makeImage(t), "1.0.0").dir, "rootfs/usr/bin/campaign-credsync")
	mounts := []string{v.home + ":" + campaignHome, v.etc + ":/etc/campaign-credsync", run + ":/run/campaign"}
	name := machineName()
	arguments := []string{"--directory=" + rootFileSystem(t), "--volatile=overlay", "--settings=no", "--machine=" + name,
		"--bind-ro=" + program + ":/usr/bin/campaign-credsync"}
	for _, m := range mounts {
		arguments = append(arguments, "--bind="+m)
	}
	user := fmt.Sprint(neolaneID)
	campaign := launch(t, name, syscall.SIGTERM, append(arguments, "--", "setpriv", "--reuid="+user, "--regid="+user, "--clear-groups",
		"bash", "-c", fmt.Sprintf(asCampaign, campaignHome))...)
	defer func() {
		if t.Failed() {
			t.Logf("Campaign's container:\n%s", campaign.console)
		}
	}()
	modules := map[string]string{"web": "", "pipelined@prod": ""}
	next := func(t *testing.T) {
		t.Helper()
		for name, before := range modules {
			modules[name] = v.awaitModule(t, campaign, name, before)
		}
	}
	next(t)

	secret := "p8e-" + (rand.Text() + rand.Text())[:32]
	v.write(t, 1, secret)
	daemon := campaign.startSidecar(t, program, append(mounts, v.state+":"+stateDir))
	status := daemon.awaitStatus(t, "in sync", func(s container.InstanceStatus) bool { return s.State == "in_sync" && s.AppliedVersion == 1 })
	if !status.Proven {
		t.Errorf("modules run again, and the status is %+v", status)
	}
	next(t)
	for name, pid := range modules {
		for _, what := range []string{"mnt", "cgroup"} {
			of := func(root string) string {
				link, err := os.Readlink(campaign.path("/proc/" + root + "/ns/" + what))
				if err != nil {
					t.Fatal(err)
				}
				return link
			}
			if of(pid) != of("1") {
				t.Errorf("%s is not in Campaign's container: namespace %s", name, what)
			}
		}
	}
	v.blanks(t)

	file := []byte(read(t, v.instanceFile()))
	syscall.Kill(daemon.leader, syscall.SIGKILL)
	await(t, "the end of the sidecar", patience, daemon.hasEnded)
	for name, pid := range modules {
		if v.awaitModule(t, campaign, name, "") != pid {
			t.Errorf("%s is another after the end of the sidecar", name)
		}
	}
	again := campaign.startSidecar(t, program, append(mounts, v.state+":"+stateDir))
	again.awaitStatus(t, "in sync", func(s container.InstanceStatus) bool { return s.State == "in_sync" && s.AppliedVersion == 1 })
	if !bytes.Equal([]byte(read(t, v.instanceFile())), file) {
		t.Error("a restart of the sidecar applies anew")
	}
	syscall.Kill(again.leader, syscall.SIGTERM)
	await(t, "the end of the sidecar", patience, again.hasEnded)
	if again.status != 0 {
		t.Errorf("SIGTERM ends it with %d", again.status)
	}
	said := daemon.console.String() + again.console.String()
	if strings.Contains(said, secret) {
		t.Errorf("the log shows the secret: %s", said)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") && !strings.Contains(line, "drift reverted") {
			t.Errorf("said: %s", line)
		}
	}
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
