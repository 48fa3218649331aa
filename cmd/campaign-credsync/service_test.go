package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	credsync "campaign-credsync/sync"
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
	s := newService(environment())
	s.ready()
	for _, state := range []credsync.State{credsync.StateDrift, credsync.StateInSync, credsync.StatePending} {
		s.show(credsync.Status{Instances: []credsync.InstanceStatus{{Name: "prod", State: state}}})
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.watch(ctx, new(credsync.Daemon)) }()
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
	for _, want := range []string{"READY=1", "STATUS=0 of 1 instances in sync; prod: pending"} {
		if !strings.Contains(all, want) {
			t.Errorf("heard %q, not %q", heard, want)
		}
	}
}
