package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// What nlserver wrote in an unusual way comes back in the very same bytes, also after a restart.
func TestRevertPutsBackTheBytesThatNlserverWrote(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.Faults(`{"odd_spelling": true}`)
	w.Edits("prod", func(d []byte) []byte {
		i := bytes.Index(d, []byte("<ims authIMSClientId"))
		return append(d[:i:i], append([]byte("<ims authIMSTAClientSecret='' authIMSTAId=''"), d[i+len("<ims"):]...)...)
	})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", secret)
	whole := w.Read("prod")
	written := bytes.Contains(whole, []byte("authIMSTAClientSecret='&#x40;")) && bytes.Contains(whole, []byte("\r\n"))
	if !written {
		t.Fatalf("the stand-in wrote\n%s", whole)
	}
	for _, restart := range []bool{false, true} {
		if restart {
			w.Kill()
		}
		value := whole[bytes.Index(whole, []byte("authIMSTAClientSecret='"))+len("authIMSTAClientSecret="):]
		value = value[:1+bytes.IndexByte(value[1:], '\'')+1]
		w.Must(os.WriteFile(w.File("prod"), bytes.Replace(whole, value, []byte(`"another"`), 1), 0o640))
		if restart {
			w.StartDaemon()
		}
		w.Eventually("the file is as it was", func() bool { return bytes.Equal(w.Read("prod"), whole) })
	}
	w.InSync(1)
	w.Ran(1, "end", "set")
}

// 40,000 attributes that hold the org id: sixteen of them are guarded, and another instance does not wait for them.
func TestManyAttributes(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"prod", "other"}})
	var many strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&many, ` org%d="0123456789ABCDEF01234567@AdobeOrg"`, i)
	}
	w.Edits("prod", func(d []byte) []byte {
		return bytes.Replace(d, []byte("<ims authIMSClientId"), []byte("<ims"+many.String()+" authIMSClientId"), 1)
	})
	_, secret := w.NewSecret("prod")
	_, others := w.NewSecret("other")
	w.StartDaemon()
	w.InSync(1)
	if n := len(readState(w, "prod.json")["attributes"].([]any)); n != 4+16 {
		t.Errorf("%d attributes are guarded", n)
	}
	w.Blank("prod")
	w.Blank("other")
	w.OnDisk("other", others)
	w.OnDisk("prod", secret)
	var left []byte // by the edit, when the guarded one is put back
	w.Edits("prod", func(d []byte) []byte {
		left = world.Replaced(t, d, ` org39999="0123456789ABCDEF01234567@AdobeOrg"`, ` org39999=""`)
		return world.Replaced(t, left, ` org3="0123456789ABCDEF01234567@AdobeOrg"`, ` org3=""`)
	})
	w.Foreign["prod"] = world.ForeignBytes(left)
	w.Eventually("the guarded one is put back", func() bool { return bytes.Contains(w.Read("prod"), []byte(` org3="0`)) })
	w.NewSecret("prod")
	w.OneInSync("prod", 2)
	const warning = "more attributes of <ims> hold a field of the credential than are guarded"
	if n := strings.Count(w.Log(), warning); n == 0 || !strings.Contains(w.Log(), "found=39999 guarded=16") && !strings.Contains(w.Log(), "found=40000 guarded=16") {
		t.Errorf("logged %d times\n%s", n, w.Log())
	}
}

// A file with a DOCTYPE, or in an encoding that is not read here, is told as what it is, and left alone.
func TestFileOfAnotherForm(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	whole := w.Read("prod")
	end := bytes.Index(whole, []byte("?>"))
	for why, form := range map[string][]byte{
		"2:1: the file has a DOCTYPE": bytes.Replace(whole, []byte("?>\n"), []byte("?>\n<!DOCTYPE serverconf SYSTEM \"serverconf.dtd\">\n"), 1),
		"1:31: the encoding is none":  append([]byte("<?xml version='1.0' encoding='utf-16'"), whole[end:]...),
	} {
		w.Must(os.WriteFile(w.File("prod"), form, 0o640))
		w.Is("prod", "degraded/file_unreadable", why)
		if !bytes.Equal(w.Read("prod"), form) {
			t.Errorf("%s: the file was changed", why)
		}
		w.Must(os.WriteFile(w.File("prod"), whole, 0o640))
		w.InSync(1)
	}
}

// Entities of plain text that the file declares stay, wherever they are used.
func TestFileWithDeclaredEntities(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.Edits("prod", func(d []byte) []byte {
		i := bytes.Index(d, []byte("<serverconf"))
		d = append(d[:i:i], append([]byte("<!DOCTYPE serverconf [\n  <!ENTITY host \"db1.example.com\">\n]>\n"), d[i:]...)...)
		return world.Replaced(t, d, "<ims authIMSClientId", "<dataStore name=\"&host;:5432\">at &host;</dataStore>\n    <ims authIMSClientId")
	})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Blank("prod")
	w.OnDisk("prod", secret)
	if !bytes.Contains(w.Read("prod"), []byte(`"&host;:5432">at &host;<`)) {
		t.Errorf("the entities are gone:\n%s", w.Read("prod"))
	}
	w.InSync(1)
}
