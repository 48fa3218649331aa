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
	"strings"
	"sync"
	"testing"
	"time"

	"campaign-credsync/test/vaulttest"
)

// admin is the host from which a rollout is run: this machine, but that nothing can be written on it, and that only programs can be
// started that record their arguments and environment.
type admin struct {
	home     string // with the inventory, ssh's configuration and key
	programs string // what PATH has
	record   string // arguments and environment of each process
	address  string // of Vault
	caCert   string // of its certificate
	token    string
	printed  strings.Builder // by all runs
}

// usedPrograms are all that rollout may start, by its documentation or because every system has them.
var usedPrograms = []string{"bash", "curl", "jq", "ssh", "tar", "gzip", "sha256sum", "cat", "cut", "dirname", "grep", "tr"}

func newAdmin(t *testing.T, address, caCert, token string) *admin {
	a := &admin{home: t.TempDir(), programs: t.TempDir(), record: filepath.Join(t.TempDir(), "record"),
		address: address, caCert: caCert, token: token}
	for _, name := range usedPrograms {
		real, err := exec.LookPath(name)
		if err != nil {
			cannot(t, "%s is not installed", name)
		}
		text := fmt.Sprintf("#!/bin/bash\n{ printf '%%s\\n' \"$0\" \"$@\"; /bin/cat /proc/self/environ; } >&3\nexec %s \"$@\"\n", real)
		if err := os.WriteFile(filepath.Join(a.programs, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a.write(t, "known_hosts", "")
	a.write(t, "ssh_config", "")
	if out, err := outside(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(a.home, "key")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return a
}

func (a *admin) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.home, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reaches makes a host known to ssh, by a real sshd for each connection. It needs no port: the containers share the network.
func (a *admin) reaches(t *testing.T, name, user string, h *host) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(a.home, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	home := "/root"
	if user != "root" {
		home = "/home/" + user
		h.run(t, "useradd", "--create-home", "--shell", "/bin/sh", user)
		h.write(t, "/etc/sudoers.d/"+user, user+" ALL=(ALL) NOPASSWD: ALL\n", 0o440)
	}
	h.run(t, "install", "-d", "-m", "0700", "-o", user, home+"/.ssh")
	h.write(t, home+"/.ssh/authorized_keys", string(key), 0o600)
	h.run(t, "chown", user, home+"/.ssh/authorized_keys")
	h.run(t, "mkdir", "-p", "/run/sshd")
	known := name + " " + h.read(t, "/etc/ssh/ssh_host_ed25519_key.pub")
	a.add(t, "known_hosts", known)
	// The shell is there for nsenter: it would stop with an sshd that is stopped, for good, and the container could not end.
	a.add(t, "ssh_config", fmt.Sprintf("Host %s\n ProxyCommand /usr/bin/nsenter --target %d --all /bin/sh -c '/usr/sbin/sshd -i; exit' 2>/dev/null\n", name, h.leader))
}

func (a *admin) add(t *testing.T, name, text string) {
	t.Helper()
	all, err := os.ReadFile(filepath.Join(a.home, name))
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name, string(all)+text)
}

// rollout runs the program and wants this exit status. Every file system of the machine is read-only for it.
func (a *admin) rollout(t *testing.T, want int, args ...string) (said string) {
	t.Helper()
	record, err := os.OpenFile(a.record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer record.Close()
	const readOnly = `mount --make-rprivate / && while read -r _ dir type _; do
	case $type in ext4 | xfs | btrfs | overlay | tmpfs) case $dir in /dev | /dev/pts | /run/systemd*) ;; *) mount -o remount,bind,ro "$dir" || exit ;; esac ;; esac
	done </proc/self/mounts && ! touch "$HOME/probe" 2>/dev/null && exec env PATH="$PROGRAMS" "$@"`
	c := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "sh", "-c", readOnly, "sh",
		"/bin/bash", filepath.Join(repository(t), "packaging/rollout/rollout")}, args...)...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + a.home, "PROGRAMS=" + a.programs, "VAULT_ADDR=" + a.address, "VAULT_CACERT=" + a.caCert, "VAULT_TOKEN=" + a.token,
		"ROLLOUT_SSH=ssh -F " + filepath.Join(a.home, "ssh_config") + " -i " + filepath.Join(a.home, "key") +
			" -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + filepath.Join(a.home, "known_hosts")}
	c.Dir = a.home
	c.ExtraFiles = []*os.File{record}
	out, err := c.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	said = string(out)
	a.printed.WriteString(said)
	if got := c.ProcessState.ExitCode(); got != want {
		t.Fatalf("rollout %s ends with %d, want %d:\n%s", strings.Join(args, " "), got, want, said)
	}
	return said
}

// arguments collects those of every process of the machine and of the containers on it, until stop. Those of nlserver have the secret.
func arguments() (stop func() []byte) {
	ended, done := make(chan struct{}), make(chan struct{})
	seen := map[string]bool{}
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range files {
				if text, err := os.ReadFile(file); err == nil && !bytes.Contains(text, []byte("-setims")) {
					seen[string(text)] = true
				}
			}
		}
	}()
	return func() []byte {
		close(ended)
		<-done
		var all bytes.Buffer
		for text := range seen {
			all.WriteString(text + "\n")
		}
		return all.Bytes()
	}
}

// wrappings records the wrapping tokens that Vault gives through the proxy.
type wrappings struct {
	mu     sync.Mutex
	tokens []string
}

// record takes the wrapping token from an answer, and reports whether there was one.
func (w *wrappings) record(answer []byte) bool {
	var body struct {
		WrapInfo struct{ Token string } `json:"wrap_info"`
	}
	if json.Unmarshal(answer, &body) != nil || body.WrapInfo.Token == "" {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens = append(w.tokens, body.WrapInfo.Token)
	return true
}

func (w *wrappings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.tokens...)
}

// writes are the requests that change something in Vault, but for those of daemons.
func writes(requests []vaulttest.Request) (paths []string) {
	for _, r := range requests {
		switch {
		case r.Method == "GET", r.Method == "LIST", r.Login(), strings.HasSuffix(r.Path, "/secret-id/lookup"),
			strings.HasPrefix(r.Path, "/v1/sys/wrapping/"), strings.HasPrefix(r.Path, "/v1/sys/capabilities-self"),
			strings.HasPrefix(r.Path, "/v1/auth/token/revoke-self"):
		default:
			paths = append(paths, r.Method+" "+r.Path)
		}
	}
	return paths
}
