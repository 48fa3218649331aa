package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/nlserver"
)

// imsTag is the start tag of <ims>, in which a value may hold anything but its own quote.
var imsTag = regexp.MustCompile(`(?s)<ims(?:"[^"]*"|'[^']*'|[^>"'])*>`)

func withIMS(tag string) string {
	return "<?xml version='1.0'?>\n<serverconf>\n  <shared>\n    " + tag + "\n  </shared>\n</serverconf>\n"
}

// What nlserver wrote comes back byte for byte: quotes, references, line ends. The record between is JSON.
func TestRestoreWritesTheBytesThatWereThere(t *testing.T) {
	c := newCampaign(t)
	c.faults(`{"odd_spelling": true, "org_attribute": "orgId"}`)
	c.write(withIMS(`<ims authIMSTAClientSecret='' authIMSTAId = 'x' orgId='' other='"&#65;'/>`))
	written, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := c.content()
	if tag := imsTag.FindString(whole); !strings.Contains(tag, "Secret='&#x40;") || !strings.Contains(tag, "\r\n") {
		t.Fatalf("the stand-in wrote %q", tag)
	}
	var wanted credential.Attributes
	if text, err := json.Marshal(written); err != nil || json.Unmarshal(text, &wanted) != nil {
		t.Fatal(err)
	}
	for name, edited := range map[string]string{
		"all emptied, other quotes": `<ims authIMSTAClientSecret="" authIMSTAId = "" orgId="" other='"&#65;' authIMSTAClientId=''/>`,
		"another spelling and value": `<ims authIMSTAClientSecret="@&#x41;" authIMSTAId = 'x&amp;y' orgId='"' other='"&#65;' ` +
			"authIMSTAClientId='\n'/>",
	} {
		t.Run(name, func(t *testing.T) {
			c.write(imsTag.ReplaceAllLiteralString(whole, edited))
			if found, err := c.Restore(t.Context(), wanted); err != nil || len(credential.Drift(wanted, found)) != 4 {
				t.Fatalf("found %+v, %v", found, err)
			}
			if got := c.content(); got != whole {
				t.Errorf("put back as\n%q\nit was\n%q", imsTag.FindString(got), imsTag.FindString(whole))
			}
		})
	}
	t.Run("the same in another spelling is left alone", func(t *testing.T) {
		same := strings.Replace(whole, "Secret='&#x40;", "Secret='@", 1)
		c.write(same)
		if found, err := c.Restore(t.Context(), wanted); err != nil || len(credential.Drift(wanted, found)) != 0 {
			t.Fatalf("found %+v, %v", found, err)
		}
		if got := c.content(); got != same {
			t.Error("the file was written")
		}
	})
}

// A failed run is undone byte for byte, too.
func TestFailedRunIsUndoneByteForByte(t *testing.T) {
	c := newCampaign(t)
	whole := withIMS("<ims authIMSTAClientId='&#x61;\r\nb' authIMSTAId=\"a'b\" orgId='&#65;' authIMSTAClientSecret='@&#65;'/>")
	c.write(whole)
	half := filepath.Join(c.path, "half.xml")
	spoiled := imsTag.ReplaceAllLiteralString(whole, `<ims authIMSTAClientId="" authIMSTAId='' orgId="x" authIMSTAClientSecret="@x"/>`)
	program := "#!/bin/sh\ncat '" + half + "' >conf/config-prod.xml\nexit 1\n"
	if err := errors.Join(os.WriteFile(half, []byte(spoiled), 0o600), os.WriteFile(filepath.Join(c.path, "half"), []byte(program), 0o700)); err != nil {
		t.Fatal(err)
	}
	server := c.server(func(n *nlserver.Config) { n.Executable, n.Command = "half", "setimsoauth" })
	in := New(Config{Name: "prod", File: c.file, StateDir: c.state, NLServer: server, Logger: slog.New(slog.DiscardHandler)})
	if _, _, err := in.Apply(t.Context(), newTestCredential(firstSecret), nil); err == nil || !strings.Contains(err.Error(), "is not the credential's") {
		t.Fatalf("error is %v", err)
	}
	if got := c.content(); got != whole {
		t.Errorf("left as\n%q\nit was\n%q", imsTag.FindString(got), imsTag.FindString(whole))
	}
}

// What cannot be what was written is not put into the file: a record that an older release went on with, or whose file has
// another encoding since.
func TestRawBytesThatMeanSomethingElse(t *testing.T) {
	const latin1 = "<?xml version='1.0' encoding='ISO-8859-1'?>\n"
	for _, x := range []struct{ raw, declaration, want string }{
		{`"right"`, "", `"right"`},
		{`'&#114;ight'`, "", `'&#114;ight'`},
		{`"right`, "", `'right'`},
		{`right`, "", `'right'`},
		{`"wrong"`, "", `'right'`},
		{`"right" x="1"`, "", `'right'`},
		{`"right'`, "", `'right'`},
		{`"&r;"`, "", `'right'`},
		{"\"", "", `'right'`},
		{"'\xe9'", latin1, "'\xe9'"},
		{"'\xe9'", "", "'é'"},
		{"'é'", latin1, "'\xe9'"},
		{"'é'", "", "'é'"},
	} {
		t.Run(fmt.Sprintf("%q in %q", x.raw, x.declaration), func(t *testing.T) {
			c := newCampaign(t)
			c.write(x.declaration + "<serverconf><shared><ims authIMSTAId='x'/></shared></serverconf>")
			value := "right"
			if strings.Contains(x.want, "\xe9") || strings.Contains(x.want, "é") {
				value = "é"
			}
			wanted := credential.Attributes{{Name: "authIMSTAId", Value: value, Raw: []byte(x.raw)}}
			if _, err := c.Restore(t.Context(), wanted); err != nil {
				t.Fatal(err)
			}
			if got := c.content(); !bytes.Contains([]byte(got), []byte("authIMSTAId="+x.want+"/")) {
				t.Errorf("written as %q, want %q", got, x.want)
			}
		})
	}
}

func (c *campaign) write(content string) {
	c.t.Helper()
	if err := os.WriteFile(c.file, []byte(content), 0o640); err != nil {
		c.t.Fatal(err)
	}
}
