package jsonfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
)

// FuzzFileContent: whatever a file holds, it gets a version that is its own, and what is said of it quotes nothing. The white
// space around it does not matter to what is whole.
func FuzzFileContent(f *testing.F) {
	const good = `{"ims_org_id":"a","client_id":"b","technical_account_id":"c","secret":"d"%s}`
	objects := []string{"", "null", "[]", `"text"`, "{", "{}", " \r\n{}\n", `{"a":1,"a":2}`, `{"\ud83d":"\xff"}`, strings.Replace(good, "%s", "", 1)}
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
		reason = strings.Replace(reason, fmt.Sprintf("%q", credential.Clean(keyTwice(content))), "", 1) // a key may be named
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
		if !isWhole(content) || !isWhole(credential.Canonical(content)) || !bytes.Equal(credential.Canonical(credential.Canonical(content)), credential.Canonical(content)) {
			t.Fatal("the canonical form is not one")
		}
		if _, refusal := credential.FromJSON(file.name(), version, content)(nil); refusal != nil && !refusal.Version.Equal(version) {
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

// shows returns a piece of text, eight bytes long, that is from the file and from nowhere else, or "".
func shows(text, said string, file []byte) string {
	const piece = 8
	for at := 0; at+piece <= len(text); at++ {
		if shown := text[at : at+piece]; !strings.Contains(said, shown) && bytes.Contains(file, []byte(shown)) {
			return shown
		}
	}
	return ""
}
