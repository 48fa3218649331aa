package login

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What each release writes into the state directory; it does not change afterwards.
const (
	refusedOfV010  = `{"digest":"7a43","until":"2026-11-29T03:21:11Z","tries":3,"same":2,"last":"2026-11-29T02:21:11.5Z"}` + "\n"
	acceptedOfV010 = `{"digest":"7a43"}` + "\n"
	keptOfV010     = `{"current":{"from":"7a43","secret_id":"0b5e"}}` + "\n"
	sealedOfV010   = `{"current":{"from":"7a43","sealed_key":"c2VhbGVk","box":"Ym94"}}` + "\n"
)

// A refused secret-id stays refused over an upgrade, and one that was unwrapped, which works once, is not lost.
func TestReadsWhatReleasesNoted(t *testing.T) {
	r := &refusals{State: State{StateDir: t.TempDir()}}
	at := time.Date(2026, 11, 29, 2, 21, 11, 500_000_000, time.UTC)
	for text, want := range map[string]note{
		refusedOfV010:  {Digest: "7a43", Until: time.Date(2026, 11, 29, 3, 21, 11, 0, time.UTC), Tries: 3, Same: 2, Last: at},
		acceptedOfV010: {Digest: "7a43"},
	} {
		file := filepath.Join(r.StateDir, refusedFile)
		writeText(t, file, text)
		got, err := r.load(refusedFile)
		if err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
		if err := r.save(refusedFile, got); err != nil {
			t.Fatal(err)
		}
		if written, err := os.ReadFile(file); err != nil || string(written) != text {
			t.Errorf("%s is written as %s, %v", text, written, err)
		}
	}
	w := &wrapping{Method: &Method{refusals: r}}
	for text, want := range map[string]keptEntry{
		keptOfV010:   {From: "7a43", Plain: "0b5e"},
		sealedOfV010: {From: "7a43", Key: "c2VhbGVk", Box: []byte("box")},
	} {
		writeText(t, filepath.Join(r.StateDir, "secret-id.key"), text)
		_, got, err := w.kept()
		if err != nil || got.From != want.From || got.Key != want.Key || got.Plain != want.Plain || string(got.Box) != string(want.Box) {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
	}
	for name, file := range map[string]string{"refused-secret-id.json": refusedFile, "accepted-secret-id.json": acceptedFile, "secret-id.key": keptFile} {
		if name != file {
			t.Errorf("%s became %s", name, file)
		}
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
