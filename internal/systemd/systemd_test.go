package systemd

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestManagerReadsLate: nobody waits for a manager that does not read, and READY=1 and the newest status come when it does.
func TestManagerReadsLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	for notify("filler") {
	}
	s := New()
	s.ReloadRefused()
	for _, status := range []string{"old", "older", "newest"} {
		s.Show(status)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Watch(ctx, nil, nil) }()
	defer func() { stop(); <-ended }()

	var heard []string
	buffer := make([]byte, 4096)
	manager.SetReadDeadline(time.Now().Add(time.Minute))
	for len(heard) < 2 {
		n, err := manager.Read(buffer)
		if err != nil {
			t.Fatalf("heard %q, then %v", heard, err)
		}
		if line := string(buffer[:n]); line != "filler" {
			heard = append(heard, line)
		}
	}
	all := strings.Join(heard, "\n")
	for _, want := range []string{"READY=1", "STATUS=newest"} {
		if !strings.Contains(all, want) {
			t.Errorf("heard %q, not %q", heard, want)
		}
	}
}
