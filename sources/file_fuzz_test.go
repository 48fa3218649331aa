package sources

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// FuzzFileContent: whatever a file holds, it gets a version that is its own, and what is said of it quotes nothing. The white
// space around it does not matter to what is whole.
func FuzzFileContent(f *testing.F) {
	const good = `{"ims_org_id":"a","client_id":"b","technical_account_id":"c","secret":"d"%s}`
	objects := append([]string{}, secretObjects...)
	for _, version := range []string{"1", "0", "-1", "01", "1.0", "1e2", `"1"`, "null", "[]", "{}", "999999999999999", "1000000000000000", " 7 ", "7,\"version\":8"} {
		objects = append(objects, strings.Replace(good, "%s", `,"version":`+version, 1))
	}
	for _, object := range objects {
		f.Add([]byte(object))
	}
	key := []byte("key")
	file := &File{path: "/run/secrets/campaign.json", key: key}
	var said strings.Builder
	for _, object := range objects {
		_, reason := file.version([]byte(object))
		said.WriteString(file.name() + " " + reason + "\n")
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		original := bytes.Clone(content)
		version, reason := file.version(content)
		if !bytes.Equal(content, original) {
			t.Fatal("the bytes were changed")
		}
		if again, _ := file.version(content); !again.Equal(version) || version.IsZero() || !version.Created.IsZero() {
			t.Fatalf("version %+v, then %+v", version, again)
		}
		reason = strings.Replace(reason, fmt.Sprintf("%q", clean(keyTwice(content))), "", 1) // a key may be named
		if shown := shows(reason, said.String(), content); shown != "" {
			t.Fatalf("the reason %q shows %q of the file", reason, shown)
		}
		if !version.Unordered {
			var object struct{ Version json.Number }
			values := topLevelVersion(content)
			if json.Unmarshal(content, &object) != nil || reason != "" || values != strconv.Itoa(version.Number) || version.Number < 1 {
				t.Fatalf("version %+v is not in the file (%q)", version, reason)
			}
		}
		if reason != "" {
			return
		}
		if !json.Valid(content) {
			t.Fatal("what is not JSON is taken")
		}
		if spaced, spacedReason := file.version(append(append([]byte(" \r\n\t"), content...), '\n')); spacedReason != "" || !spaced.Equal(version) {
			t.Fatalf("with white space around it: %+v, %q", spaced, spacedReason)
		}
		if !isWhole(content) || !isWhole(canonical(content)) || !bytes.Equal(canonical(canonical(content)), canonical(content)) {
			t.Fatal("the canonical form is not one")
		}
		if _, refusal := pick(file.name(), version, content)(fuzzFields); refusal != nil && !refusal.Version.Equal(version) {
			t.Fatalf("refused for version %+v, which is %+v", refusal.Version, version)
		}
	})
}

// topLevelVersion is the last "version" of an object, read token by token.
func topLevelVersion(object []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	decoder.Token()
	found := ""
	for decoder.More() {
		key, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return ""
		}
		if key == "version" {
			found = string(value)
		}
	}
	return found
}

// The way to a file is what the kernel walks: every link on it, and the end.
func TestTrail(t *testing.T) {
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
	for file, want := range map[string][]spot{
		"else/where/file": {{at("else/where"), "file"}},
		"real/file":       {{at("real"), "file"}, {at("real"), "..data"}, {at("real/..1"), "file"}},
		"link/file":       {{at(""), "link"}, {at("real"), "file"}, {at("real"), "..data"}, {at("real/..1"), "file"}},
		"far":             {{at(""), "far"}, {at("else/where"), "file"}},
		"up":              {{at(""), "up"}, {at("else"), "file"}},
		"throughlink":     {{at(""), "throughlink"}, {at(""), "link"}, {at(""), "far"}, {at("else/where"), "file"}},
		"lost":            {{at(""), "lost"}, {at(""), "nowhere"}},
		"no/such/file":    {{at(""), "no"}},
		"else/nothing":    {{at("else"), "nothing"}},
	} {
		// Written as people do, with what means nothing.
		if got := trailOf(root + "/./" + strings.ReplaceAll(file, "/", "//")); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", file, got, want)
		}
	}
	for _, loop := range []string{"loop", "a"} {
		if n := len(trailOf(at(loop))); n > maxLinks+1 {
			t.Errorf("%s: %d spots", loop, n)
		}
	}
}
