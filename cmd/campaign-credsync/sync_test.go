package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// TestSyncAsksTheDaemonOfItsStateDirectory: a daemon that has another one does not answer in its place, and one that has just begun
// is waited for.
func TestSyncAsksTheDaemonOfItsStateDirectory(t *testing.T) {
	dir := t.TempDir()
	file, socket, stateDir := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "sock"), filepath.Join(dir, "state")
	text := fmt.Sprintf("campaign: {home: %[1]s}\ninstances: [{name: prod, source: file, file: %[1]s/none.json, config_file: %[1]s/c.xml}]\n"+
		"state_dir: %[2]s\ncontrol_socket: %[3]s\n", dir, stateDir, socket)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := func() *control.Server {
		server, err := control.Listen(socket, "", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		server.Serve(answering{})
		return server
	}
	doSync := func() (status int, output string) {
		var stdout, stderr bytes.Buffer
		status = run(context.Background(), []string{"--config", file, "sync"}, &stdout, &stderr, os.LookupEnv)
		return status, stdout.String() + stderr.String()
	}

	server := listen()
	if status, output := doSync(); status != exitFailed || !strings.Contains(output, "none.json") {
		t.Errorf("beside the daemon of another state directory: status %d, %s", status, output)
	}
	server.Close()

	store, err := state.Open(stateDir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		if status, output := doSync(); status != 0 || !strings.Contains(output, "prod: in_sync, version 7 applied") {
			t.Errorf("while its daemon starts: status %d, %s", status, output)
		}
	}()
	time.Sleep(100 * time.Millisecond) // so that it most likely finds nobody first; no event tells
	defer listen().Close()
	<-synced
}

// answering is a daemon that answers without a pass.
type answering struct{ control.Daemon }

func (answering) Ping(context.Context) error { return nil }
func (answering) Status() control.Status {
	return control.Status{Instances: []sync.InstanceStatus{{Name: "prod", State: sync.StateInSync, AppliedVersion: 7}}}
}
func (d answering) Do(context.Context, control.Order) (control.Status, error) { return d.Status(), nil }
