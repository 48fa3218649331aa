package faults_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/freeport"
	"campaign-credsync/test/world"
)

// Ten thousand connect to the page and metrics. Some say nothing, some send headers without an end, some ask and do not read. The daemon
// has few of them open, goes on with its work meanwhile, and answers when they have gone.
func TestListenIsFlooded(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	address, err := freeport.Address()
	w.Must(err)
	w.Reconfigured(func(o *container.Options) { o.Settings += "\nlisten: " + address })
	_, first := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", first)
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Running.PID()))
		w.Must(err)
		return len(entries)
	}
	before, most := descriptors(), 0

	dialer := net.Dialer{Timeout: 20 * time.Millisecond}
	var conns []net.Conn
	refused := 0
	for i := range 10_000 {
		conn, err := dialer.DialContext(w.Ctx, "tcp", address)
		if err != nil { // the kernel's queue is full, or this process has no more descriptors
			if refused++; refused > 100 {
				break
			}
			continue
		}
		conns = append(conns, conn)
		conn.SetDeadline(time.Now().Add(world.Patience))
		switch i % 5 {
		case 0:
			fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: d\r\n\r\n")
		case 1:
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: d\r\n\r\n")
		case 2:
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nX-Endless: %s", strings.Repeat("x", 60<<10))
		case 3:
			fmt.Fprint(conn, "POST /sync HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000000\r\n\r\n")
		}
		most = max(most, descriptors())
	}
	t.Logf("%d connections, %d refused by the kernel, the daemon had %d descriptors before and at most %d", len(conns), refused, before, most)
	if most > before+40 { // 32, and what the work opens
		t.Errorf("the daemon had %d descriptors, and %d before", most, before)
	}
	_, second := w.NewSecret("prod")
	w.InSync(2)
	w.Blank("prod")
	w.Reverted("prod", 1)
	w.Holds("prod", second)
	w.Exits(0, "prod", "status")

	for _, conn := range conns {
		conn.Close()
	}
	client := http.Client{Timeout: world.Patience}
	w.Succeeds("it answers again", func() error {
		answer, err := client.Get("http://" + address + "/healthz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", answer.StatusCode)
		}
		return nil
	})
}
