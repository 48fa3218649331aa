package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// manager hears what a daemon tells systemd.
type manager struct {
	mu    sync.Mutex
	heard []string
	times []time.Time
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
			m.times = append(m.times, time.Now())
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
	w := newWorld(t, container.Options{Instances: []string{"slow", "other"}})
	_, first := w.rotate("slow")
	_, other := w.rotate("other")
	m := &manager{}
	m.listen(t, w.path("notify"))
	c := exec.Command(programs.Daemon, "--config", w.Config, "run")
	const watchdog = 2 * time.Second
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.path("notify"), "WATCHDOG_USEC=2000000")
	log, err := os.Create(w.path("log"))
	w.must(err)
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	w.must(c.Start())
	t.Cleanup(func() { c.Process.Kill() })
	w.inSync(1)
	w.eventually("it is ready", func() bool { return m.count("READY=1") == 1 })
	w.faults(`{"write_delay": "5s", "only_for": ["slow"]}`)
	w.rotate("slow")
	w.waits("write_delay")
	sets := w.runs("end", "set")
	w.must(c.Process.Signal(syscall.SIGHUP))
	w.eventually("it reloads", func() bool { return m.count("RELOADING=1") == 1 })
	w.blank("other")
	w.onDisk("other", other)
	if w.runs("end", "set") != sets {
		t.Error("drift of another instance had to wait for nlserver")
	}
	w.eventually("it is ready again", func() bool { return m.count("READY=1") == 2 })
	w.oneInSync("slow", 2)
	w.must(c.Process.Signal(syscall.SIGTERM))
	w.must(c.Wait())
	if m.count("STOPPING=1") != 1 {
		t.Errorf("heard %q", m.all())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var last time.Time
	for i, line := range m.heard {
		if !strings.Contains(line, "WATCHDOG=1") {
			continue
		}
		if gap := m.times[i].Sub(last); !last.IsZero() && gap > watchdog {
			t.Errorf("no sign of life for %v: systemd would have killed it", gap)
		}
		last = m.times[i]
	}
	for _, line := range m.heard {
		if strings.Contains(line, first) || strings.Contains(line, other) {
			t.Error("a secret was told to systemd")
		}
	}
}

// oneInSync waits until one instance is in sync with a version.
func (w *world) oneInSync(instance string, version int) {
	w.t.Helper()
	w.await(instance+" in sync", func(s container.Status) bool {
		return one(s, instance).State == "in_sync" && one(s, instance).AppliedVersion == version
	})
}
