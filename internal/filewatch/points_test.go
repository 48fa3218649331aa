package filewatch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The way to a file is what the kernel walks: every link on it, and the end.
func TestWatchPoints(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(elem ...string) string { return filepath.Join(append([]string{root}, elem...)...) }
	for _, dir := range []string{"real/..1", "real/..2", "else/where"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"real/..data": "..1", "real/file": "..data/file", "link": "real/", "far": at("else", "where", "file"), "up": "else/where/../file",
		"lost": "nowhere/at/all", "loop": "loop", "throughlink": "link/../far", "a": "b", "b": "a",
	} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"real/..1/file", "else/where/file"} {
		if err := os.WriteFile(at(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string][]watchPoint{
		"else/where/file": {{dir: at("else/where"), name: "file"}},
		"real/file":       {{dir: at("real"), name: "file"}, {dir: at("real"), name: "..data"}, {dir: at("real/..1"), name: "file"}},
		"link/file":       {{dir: at(""), name: "link"}, {dir: at("real"), name: "file"}, {dir: at("real"), name: "..data"}, {dir: at("real/..1"), name: "file"}},
		"far":             {{dir: at(""), name: "far"}, {dir: at("else/where"), name: "file"}},
		"up":              {{dir: at(""), name: "up"}, {dir: at("else"), name: "file"}},
		"throughlink":     {{dir: at(""), name: "throughlink"}, {dir: at(""), name: "link"}, {dir: at(""), name: "far"}, {dir: at("else/where"), name: "file"}},
		"lost":            {{dir: at(""), name: "lost"}, {dir: at(""), name: "nowhere"}},
		"no/such/file":    {{dir: at(""), name: "no"}},
		"else/nothing":    {{dir: at("else"), name: "nothing"}},
	} {
		// Written as people do, with what means nothing.
		got := watchPointsOf(root + "/./" + strings.ReplaceAll(file, "/", "//"))
		for i := range got {
			if got[i].id != signatureOf(got[i].dir).fileID {
				t.Errorf("%s: %v is the ID of another", file, got[i])
			}
			got[i].id = fileID{}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", file, got, want)
		}
	}
	for _, loop := range []string{"loop", "a"} {
		if n := len(watchPointsOf(at(loop))); n > maxLinks+1 {
			t.Errorf("%s: %d points", loop, n)
		}
	}
}
