package compatibility_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"campaign-credsync/sync/state"
	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

var (
	record = flag.String("record", "", "make testdata of a release of this name")
	daemon = flag.String("daemon", "", "for -record and TestStartsAfterRelease: an executable of the daemon, if not of this code")
)

// TestRecord makes the files of a release.
func TestRecord(t *testing.T) {
	if *record == "" {
		return
	}
	to := filepath.Join("testdata", *record)
	if _, err := os.Stat(to); err == nil {
		t.Fatalf("%s is there: what a release left does not change", to)
	}
	p := newPlace(t, *daemon)
	write(t, p.credential(fileSecret), p.credentials, "prod.json")
	write(t, p.credential(fileSecret), p.credentials, "file.json")
	p.SetByHand(handSecret)
	p.StartDaemon()
	p.AwaitStatus("all are in sync, but the one that is held", func(s container.Status) bool {
		return world.One(s, "prod").State == "held" && world.One(s, "prod").WantedVersion != 0 && world.One(s, "vault").State == "in_sync" &&
			world.One(s, "file").State == "in_sync" && world.One(s, "away").State == "in_sync"
	})
	p.Blank("vault")
	p.Happened("drift_reverted")
	p.commands(to)
	p.Is("file", "in_sync")
	p.Exits(0, "", "pause", "--for", "1h", "--instance", "away", "--reason", "work on the disk")
	p.Is("away", "paused")
	status, _, _ := p.RunCommand("status", "--json")
	write(t, p.general([]byte(status)), to, "status.json")
	metrics, _, _ := p.RunCommand("status", "--prometheus")
	write(t, []byte(metrics), to, "metrics.txt")
	p.Stop()

	p.keep(p.StateDir(), filepath.Join(to, "state"), "*.json", "digest.key", "history.jsonl")
	p.keep(p.credentials, filepath.Join(to, "credentials"), "*.json")
	for _, name := range p.Instances {
		write(t, p.Read(name), to, "nl6/conf", filepath.Base(p.File(name)))
	}
	write(t, p.general(read(t, p.Config)), to, "config.yaml")
	write(t, p.general(read(t, p.StateDir(), "history.jsonl")), to, "history.jsonl")
	const example = "../../packaging/systemd/config.example.yaml"
	write(t, read(t, example), to, "config.example.yaml")
	write(t, effective(t, example), to, "effective.yaml")
	everyField(t, to)
}

// keep copies files that fit the patterns.
func (p *place) keep(from, to string, patterns ...string) {
	p.T.Helper()
	for _, pattern := range patterns {
		names, err := filepath.Glob(filepath.Join(from, pattern))
		p.Must(err)
		for _, name := range names {
			content := read(p.T, name)
			if pattern != "digest.key" {
				content = p.general(content)
			}
			write(p.T, content, to, filepath.Base(name))
		}
	}
}

// commands runs those that ask the daemon, through a socket that notes what they ask.
func (p *place) commands(to string) {
	p.T.Helper()
	socket := p.Path("noting.sock")
	listener, err := net.Listen("unix", socket)
	p.Must(err)
	requests, ended := make(chan []byte, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			asks, err := listener.Accept()
			if err != nil {
				return
			}
			requests <- p.forward(asks)
		}
	}()
	config := p.Path("noting.yaml")
	write(p.T, bytes.Replace(read(p.T, p.Config), []byte(p.Path("control.sock")), []byte(socket), 1), config)
	for _, args := range [][]string{
		{"status"},
		{"history"},
		{"status", "--prometheus"},
		{"sync", "--instance", "file"},
		{"pause", "--for", "1h", "--instance", "file", "--reason", "work on the disk"},
		{"resume", "--instance", "file"},
		{"adopt", "--instance", "file"},
	} {
		p.RunCommand(append([]string{"--config", config}, args...)...)
	}
	listener.Close()
	<-ended
	close(requests)
	seen := map[string]bool{}
	for request := range requests {
		if !seen[string(request)] {
			seen[string(request)] = true
			write(p.T, request, to, "requests", fmt.Sprint(len(seen)))
		}
	}
}

// forward has the daemon answer, and returns what was asked.
func (p *place) forward(asks net.Conn) []byte {
	defer asks.Close()
	answers, err := net.Dial("unix", p.Path("control.sock"))
	if err != nil {
		p.T.Error(err)
		return nil
	}
	defer answers.Close()
	var asked bytes.Buffer
	forwarded := make(chan struct{})
	go func() {
		io.Copy(answers, io.TeeReader(asks, &asked))
		close(forwarded)
	}()
	io.Copy(asks, answers)
	asks.Close()
	<-forwarded
	return asked.Bytes()
}

// everyField keeps a record with a value in each field.
func everyField(t *testing.T, to string) {
	t.Helper()
	var r state.Record
	fill(reflect.ValueOf(&r).Elem())
	dir := t.TempDir()
	store, err := state.Open(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Save("every", r); err != nil {
		t.Fatal(err)
	}
	write(t, read(t, dir, "every.json"), to, "every-field.json")
}

// fill gives every exported field below v a value other than zero.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(7)
	case v.CanUint():
		v.SetUint(7)
	default:
		panic("no value for " + v.Type().String())
	}
}

// tree is a JSON text as maps, slices and values.
func tree(t *testing.T, text []byte) (root any) {
	t.Helper()
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return root
}
