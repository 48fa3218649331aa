//go:build systemd

package systemd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/standin"
)

// neolaneID is the user and the group of Campaign's files in containers without systemd. It has no name.
const neolaneID = 4711

// volumes are directories that containers share: Campaign's home, and the daemon's configuration and state. The credential is in
// "credential.json" beside the configuration.
type volumes struct{ home, etc, state string }

func newVolumes(t *testing.T, settings, faults string) volumes {
	t.Helper()
	dir := t.TempDir()
	campaign := standin.New(t)
	campaign.Faults(faults)
	home := campaign.Path
	env := filepath.Join(home, "env.sh")
	put(t, env, strings.ReplaceAll(read(t, env), home, campaignHome), 0o644)
	v := volumes{home, filepath.Join(dir, "etc"), filepath.Join(dir, "state")}
	// As Kubernetes makes an emptyDir: everybody may write it, so the daemon makes a directory of its own in it.
	if err := errors.Join(os.Mkdir(v.etc, 0o755), os.Mkdir(v.state, 0), os.Chmod(v.state, 0o777)); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`campaign: {home: %s%s}
instances: [{name: %s, source: file, file: /etc/campaign-credsync/credential.json}]
state_dir: %s/own
control_socket: %[4]s/own/control.sock
`, campaignHome, settings, instance, stateDir)
	if err := os.WriteFile(filepath.Join(v.etc, "config.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return v
}

// handOver makes Campaign's user the owner.
func (v volumes) handOver(t *testing.T) {
	t.Helper()
	if out, err := outside(t, "chown", "-R", fmt.Sprintf("%d:%[1]d", neolaneID), v.home); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// write has the next version of the credential in the file.
func (v volumes) write(t *testing.T, version int, secret string) {
	t.Helper()
	of := container.Credential(secret)
	of["version"] = version
	text, err := json.Marshal(of)
	file := filepath.Join(v.etc, "credential.json")
	if err == nil {
		err = os.WriteFile(file+".new", text, 0o640)
	}
	if err == nil {
		err = os.Chown(file+".new", neolaneID, neolaneID)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (v volumes) instanceFile() string { return filepath.Join(v.home, "conf/config-"+instance+".xml") }

// set writes a credential as a person does who has nlserver.
func (v volumes) set(t *testing.T, secret string) {
	t.Helper()
	of := container.Credential(secret)
	set := exec.CommandContext(t.Context(), filepath.Join(v.home, "bin/nlserver"), "config", "-instance:"+instance,
		fmt.Sprintf("-setimsoauth:%s/%s/%s/%s", of["ims_org_id"], of["client_id"], of["technical_account_id"], secret))
	set.Env = []string{"LD_LIBRARY_PATH=" + filepath.Join(v.home, "lib")}
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// blanks empties the secret as a hand edit does, and waits until every byte is as before.
func (v volumes) blanks(t *testing.T) {
	t.Helper()
	before := []byte(read(t, v.instanceFile()))
	secret, err := container.Attribute(before, "authIMSTAClientSecret")
	if err != nil || secret == "" {
		t.Fatalf("no secret in the file: %v", err)
	}
	if err := os.WriteFile(v.instanceFile(), bytes.Replace(before, []byte(secret), nil, 1), 0); err != nil {
		t.Fatal(err)
	}
	await(t, "the revert", patience, func() bool { return read(t, v.instanceFile()) == string(before) })
}

// run starts the image as it says, but for the user, with a root file system that cannot be written to. As for any container that shares
// conf/, the directory is mounted and not the file.
func (b bundle) run(t *testing.T, v volumes) *machine {
	t.Helper()
	name := machineName()
	if err := os.Rename(filepath.Join(b.dir, "rootfs"), filepath.Join(b.dir, name)); err != nil { // from this nspawn takes the machine's name
		t.Fatal(err)
	}
	process := b.spec["process"].(map[string]any)
	process["terminal"] = false
	process["user"] = map[string]any{"uid": neolaneID, "gid": neolaneID}
	delete(process, "capabilities") // those of root
	mounts := []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}}
	for to, from := range map[string]string{"/etc/campaign-credsync": v.etc, stateDir: v.state, campaignHome: v.home} {
		mounts = append(mounts, map[string]any{"destination": to, "type": "bind", "source": from, "options": []string{"rbind"}})
	}
	var namespaces []any
	for _, kind := range []string{"pid", "mount", "ipc", "uts"} {
		namespaces = append(namespaces, map[string]any{"type": kind})
	}
	text, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.0", "process": process, "root": map[string]any{"path": name, "readonly": true},
		"mounts": mounts, "linux": map[string]any{"namespaces": namespaces},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := launch(t, name, syscall.SIGKILL, "--oci-bundle="+b.dir)
	m.user = neolaneID
	return m
}

// awaitStatus waits until the daemon in the container tells what is expected.
func (m *machine) awaitStatus(t *testing.T, what string, fits func(container.InstanceStatus) bool) container.InstanceStatus {
	t.Helper()
	var s container.Status
	var last outcome
	defer func() {
		if t.Failed() {
			t.Logf("last status: %v\n%s", last, m.console)
		}
	}()
	await(t, what, patience, func() bool {
		if m.hasEnded() {
			t.Fatalf("the container has ended:\n%s", m.console)
		}
		last = m.try(t, "campaign-credsync", "status", "--json")
		return json.Unmarshal([]byte(last.stdout), &s) == nil && len(s.Instances) == 1 && fits(s.Instances[0])
	})
	return s.Instances[0]
}

// TestBareImage shows what the image can do by itself: guard what is on disk. It cannot run nlserver, and says so.
func TestBareImage(t *testing.T) {
	requireTools(t)
	const first, second = "p8e-BareImageFirstSecret000000000000", "p8e-BareImageSecondSecret00000000000"
	v := newVolumes(t, "", "{}")
	v.set(t, first)
	v.handOver(t)
	v.write(t, 1, first)
	m := unpack(t, makeImage(t), "1.0.0").run(t, v)

	m.awaitStatus(t, "held", func(s container.InstanceStatus) bool { return s.State == "held" })
	if o := m.try(t, "campaign-credsync", "validate"); o.status != 0 {
		t.Errorf("validate: %v", o)
	}
	v.blanks(t)
	if o := m.try(t, "campaign-credsync", "adopt"); o.status != 0 {
		t.Errorf("adopt: %v", o)
	}
	if o := m.try(t, "campaign-credsync", "status"); o.status != 0 {
		t.Errorf("status: %v", o)
	}
	v.blanks(t)

	before := read(t, v.instanceFile())
	v.write(t, 2, second)
	failed := m.awaitStatus(t, "an apply that fails", func(s container.InstanceStatus) bool { return s.Reason == "apply_failed" })
	t.Logf("without nlserver: %s", failed.LastError)
	if read(t, v.instanceFile()) != before {
		t.Error("an apply that cannot work changes the file")
	}
	v.blanks(t)

	m.reapsOrphans(t)
	began := time.Now()
	syscall.Kill(m.leader, syscall.SIGTERM)
	await(t, "the end of process 1", patience, m.hasEnded)
	if m.status != 0 {
		t.Errorf("SIGTERM ends it with %d", m.status)
	}
	t.Logf("ended %s after SIGTERM", time.Since(began).Round(time.Millisecond))
	if said := m.console.String(); strings.Contains(said, first) || strings.Contains(said, second) {
		t.Errorf("the log shows a secret: %s", said)
	}
}

// reapsOrphans has a process in the container lose its parent, and end.
func (m *machine) reapsOrphans(t *testing.T) {
	t.Helper()
	// With the programs of this machine, as there are none inside.
	inside := []string{"nsenter", "--target", strconv.Itoa(m.leader), "--pid", "--", "sh", "-c"}
	out, err := outside(t, append(inside, "sleep 1000 >/dev/null 2>&1 & echo $!")...)
	pid := strings.TrimSpace(out)
	if err != nil || field(m.read(t, "/proc/"+pid+"/status"), "PPid:") != "1" {
		t.Fatalf("no orphan: %v: %s", err, out)
	}
	if out, err := outside(t, append(inside, "kill "+pid)...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	await(t, "process 1 to wait for an orphan", patience, func() bool {
		_, err := os.Stat(m.path("/proc/" + pid))
		return os.IsNotExist(err)
	})
}
