package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// manager hears what a daemon tells systemd.
type manager struct {
	mu    sync.Mutex
	heard []string
}

func (m *manager) listen(t *testing.T, path string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.heard = append(m.heard, string(buffer[:n]))
			m.mu.Unlock()
		}
	}()
}

func (m *manager) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.heard...)
}

func (m *manager) count(text string) (n int) {
	for _, line := range m.all() {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// While a reload waits for an nlserver that is writing, the watchdog is fed and the other instances are guarded.
func TestReloadThatWaitsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"slow", "other"}})
	_, first := w.NewSecret("slow")
	_, other := w.NewSecret("other")
	m := &manager{}
	m.listen(t, w.Path("notify"))
	c := exec.Command(w.Daemon(), "--config", w.Config, "run")
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.Path("notify"), "WATCHDOG_USEC=2000000")
	log, err := os.Create(w.Path("log"))
	w.Must(err)
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	w.Must(c.Start())
	t.Cleanup(func() { c.Process.Kill() })
	w.InSync(1)
	w.Eventually("it is ready", func() bool { return m.count("READY=1") == 1 })
	w.Faults(`{"write_delay": "10m", "only_for": ["slow"]}`)
	w.NewSecret("slow")
	w.WaitsAt("write_delay")
	sets := w.CountRuns("end", "set")
	w.Must(c.Process.Signal(syscall.SIGHUP))
	w.Eventually("it reloads", func() bool { return m.count("RELOADING=1") == 1 })
	w.Blank("other")
	w.OnDisk("other", other)
	if w.CountRuns("end", "set") != sets {
		t.Error("drift of another instance had to wait for nlserver")
	}
	fed := m.count("WATCHDOG=1")
	w.Eventually("the watchdog is fed meanwhile", func() bool { return m.count("WATCHDOG=1") >= fed+3 })
	if m.count("READY=1") != 1 {
		t.Error("it is ready again while nlserver writes")
	}
	w.Release()
	w.Eventually("it is ready again", func() bool { return m.count("READY=1") == 2 })
	w.OneInSync("slow", 2)
	w.Must(c.Process.Signal(syscall.SIGTERM))
	w.Must(c.Wait())
	if m.count("STOPPING=1") != 1 {
		t.Errorf("heard %q", m.all())
	}
	for _, line := range m.all() {
		if strings.Contains(line, first) || strings.Contains(line, other) {
			t.Error("a secret was told to systemd")
		}
	}
}

// What is told to systemd of many instances that are out of order fits what systemd takes: the count first, then as many as there is
// room for.
func TestStatusOfManyInstancesFitsADatagram(t *testing.T) {
	t.Parallel()
	options := container.Options{NoVault: true, Secrets: map[string]string{}}
	for i := range 60 {
		name := fmt.Sprintf("instance%02d", i)
		options.Instances = append(options.Instances, name)
		options.Secrets[name] = "source: file, file: /nowhere/" + strings.Repeat("long/", 20) + name + ".json"
	}
	w := world.New(t, options)
	m := &manager{}
	m.listen(t, w.Path("notify"))
	c := exec.Command(w.Daemon(), "--config", w.Config, "run")
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.Path("notify"))
	w.Must(c.Start())
	t.Cleanup(func() { c.Process.Kill() })
	w.AwaitStatus("all are blocked", func(s container.Status) bool { return s.Is("blocked") })
	w.Eventually("it is told", func() bool {
		return m.count("STATUS=0 of 60 instances in sync; instance00: blocked") > 0 && m.count("… and ") > 0
	})
	w.Must(c.Process.Signal(syscall.SIGTERM))
	w.Must(c.Wait())
	for _, datagram := range m.all() {
		if len(datagram) > 4096 {
			t.Errorf("%d bytes: %s", len(datagram), datagram)
		}
	}
}
