package systemd

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
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
	var status atomic.Value
	status.Store("old")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Watch(ctx, nil, nil, func() string { return status.Load().(string) }) }()
	defer func() { stop(); <-ended }()
	for _, newer := range []string{"older", "newest"} {
		status.Store(newer)
		s.Changed()
	}

	var heard []string
	buffer := make([]byte, 4096)
	manager.SetReadDeadline(time.Now().Add(time.Minute))
	for !slices.Contains(heard, "READY=1") || !slices.Contains(heard, "STATUS=newest") {
		n, err := manager.Read(buffer)
		if err != nil {
			t.Fatalf("heard %q, then %v", heard, err)
		}
		if line := string(buffer[:n]); line != "filler" {
			heard = append(heard, line)
		}
	}
}
