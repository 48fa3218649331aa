package faults_test

import (
	"bytes"
	"os"
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
		"2:1: the file has a DOCTYPE": bytes.Replace(whole, []byte("?>\n"), []byte("?>\n<!DOCTYPE serverconf [\n  <!ENTITY host \"db1.example.com\">\n]>\n"), 1),
		"1:31: the encoding is none":  append([]byte("<?xml version='1.0' encoding='utf-16'"), whole[end:]...),
	} {
		w.Must(os.WriteFile(w.File("prod"), form, 0o640))
		w.Is("prod", "degraded", why)
		if !bytes.Equal(w.Read("prod"), form) {
			t.Errorf("%s: the file was changed", why)
		}
		w.Must(os.WriteFile(w.File("prod"), whole, 0o640))
		w.InSync(1)
	}
}
