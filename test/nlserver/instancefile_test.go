package main_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/skip"
)

// managed matches what an apply may add, with the space before it.
var managed = regexp.MustCompile(` authIMSTA(ClientId|Id|ClientSecret|PrivateKey)="[^"]*"`)

func TestWriteInPlace(t *testing.T) {
	c := newCampaign(t)
	original := c.read()
	// A second name of the inode: a file replaced by a rename would leave it behind.
	other := filepath.Join(t.TempDir(), "same-inode.xml")
	if err := os.Link(c.instanceFile(), other); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(c.instanceFile())
	if err != nil {
		t.Fatal(err)
	}

	c.mustRun("config", "-instance:prod", oauth)
	first, firstSecret := c.read(), c.ims()["authIMSTAClientSecret"]
	bare := first
	for _, name := range []string{"authIMSTAClientId", "authIMSTAId", "authIMSTAClientSecret"} {
		bare = strings.Replace(bare, ` `+name+`="`+c.ims()[name]+`"`, "", 1)
	}
	if bare != original {
		t.Error("bytes outside the managed attributes changed")
	}
	c.mustRun("config", "-instance:prod", oauth)
	second, secondSecret := c.read(), c.ims()["authIMSTAClientSecret"]
	if strings.ReplaceAll(second, secondSecret, firstSecret) != first {
		t.Error("a second apply changed more than the encrypted secret")
	}
	if firstSecret == secondSecret {
		t.Error("same ciphertext twice: the IV is not random")
	}

	if text, err := os.ReadFile(other); err != nil || string(text) != second {
		t.Errorf("the inode was replaced (%v)", err)
	}
	after, err := os.Stat(c.instanceFile())
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(info, after) || after.Mode() != info.Mode() {
		t.Errorf("inode or mode changed: %v, then %v", info.Mode(), after.Mode())
	}
	entries, err := os.ReadDir(filepath.Join(c.home, "conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "config-default.xml" && name != "config-prod.xml" {
			t.Errorf("stray file conf/%s", name)
		}
	}
}

// The JWT form with three fields writes nothing random, so the whole file can
// be compared.
func TestPlaceOfAttributes(t *testing.T) {
	const set = `authIMSTAClientId="C" authIMSTAId="T"`
	for _, test := range []struct{ about, before, after string }{
		{
			"empty element",
			"<serverconf><shared><ims/></shared></serverconf>",
			"<serverconf><shared><ims " + set + "/></shared></serverconf>",
		},
		{
			"element with an end tag, after other attributes",
			"<serverconf>\n<shared>\n<ims  a='1'\n  b=\"2\" ></ims >\n</shared></serverconf>\n",
			"<serverconf>\n<shared>\n<ims  a='1'\n  b=\"2\" " + set + " ></ims >\n</shared></serverconf>\n",
		},
		{
			"order, quotes and spacing stay, an empty value is filled",
			`<serverconf><shared><ims authIMSTAId = 'old' x="1"  authIMSTAClientId=""/></shared></serverconf>`,
			`<serverconf><shared><ims authIMSTAId = 'T' x="1"  authIMSTAClientId="C"/></shared></serverconf>`,
		},
		{
			"serverConf, line ends of Windows, byte order mark",
			"\xef\xbb\xbf<?xml version='1.0'?>\r\n<serverConf>\r\n\t<shared>\r\n\t\t<dataStore/>\r\n\t</shared>\r\n</serverConf>\r\n",
			"\xef\xbb\xbf<?xml version='1.0'?>\r\n<serverConf>\r\n\t<shared>\r\n\t\t<dataStore/>\r\n\t  <ims " + set + "/>\r\n\t</shared>\r\n</serverConf>\r\n",
		},
		{
			"ISO-8859-1",
			"<?xml version='1.0' encoding='ISO-8859-1'?>\n<serverconf><!-- \xe9t\xe9 --><shared x='\xe9'><ims/></shared></serverconf>",
			"<?xml version='1.0' encoding='ISO-8859-1'?>\n<serverconf><!-- \xe9t\xe9 --><shared x='\xe9'><ims " + set + "/></shared></serverconf>",
		},
		{
			"no ims, shared on one line",
			"<serverconf>\n  <shared><dataStore/></shared>\n</serverconf>",
			"<serverconf>\n  <shared><dataStore/>\n    <ims " + set + "/>\n  </shared>\n</serverconf>",
		},
		{
			"shared without content",
			"<serverconf>\n  <shared lang='eng' />\n</serverconf>",
			"<serverconf>\n  <shared lang='eng'>\n    <ims " + set + "/>\n  </shared>\n</serverconf>",
		},
		{
			"no shared",
			"<serverconf>\n  <mta/>\n</serverconf>\n",
			"<serverconf>\n  <mta/>\n  <shared>\n    <ims " + set + "/>\n  </shared>\n</serverconf>\n",
		},
		{
			"ims elsewhere, in a comment and in CDATA",
			"<serverconf><ims/><mta><shared><ims/></shared></mta><!-- <shared><ims/></shared> --><shared><a><ims/></a><![CDATA[<ims/>]]><ims>x &gt; y</ims></shared></serverconf>",
			"<serverconf><ims/><mta><shared><ims/></shared></mta><!-- <shared><ims/></shared> --><shared><a><ims/></a><![CDATA[<ims/>]]><ims " + set + ">x &gt; y</ims></shared></serverconf>",
		},
	} {
		t.Run(test.about, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			c.write(test.before)
			c.mustRun("config", "-instance:prod", "-setimsjwtauth:O/C/T")
			if got := c.read(); got != test.after {
				t.Errorf("got  %q\nwant %q", got, test.after)
			}
		})
	}
}

func TestValuesAreEscaped(t *testing.T) {
	c := newCampaign(t)
	const odd = `<a> & "b" 'c'`
	c.mustRun("config", "-instance:prod", "-setimsjwtauth:O/"+odd+"/T")
	if got := c.ims()["authIMSTAClientId"]; got != odd {
		t.Errorf("read back %q, want %q", got, odd)
	}
}

func TestUnusableFileIsLeftAlone(t *testing.T) {
	for about, text := range map[string]string{
		"empty":             "",
		"not closed":        "<serverconf><shared><ims/></shared><mta autoStart='true'></serverconf>",
		"cut off in a tag":  "<serverconf><shared><ims authIMSTAId=\"x",
		"cut off":           "<serverconf><shared>",
		"other root":        "<config><shared><ims/></shared></config>",
		"two roots":         "<serverconf/><serverconf/>",
		"text after root":   "<serverconf><shared/></serverconf> x",
		"bare ampersand":    "<serverconf a='x & y'><shared/></serverconf>",
		"attribute twice":   "<serverconf><shared><ims a='1' a='2'/></shared></serverconf>",
		"no quotes":         "<serverconf><shared><ims a=1/></shared></serverconf>",
		"attributes joined": "<serverconf><shared><ims a='1'b='2'/></shared></serverconf>",
		"comment open":      "<serverconf><shared/><!-- </serverconf>",
		"hyphens":           "<serverconf><!-- a -- b --><shared/></serverconf>",
		"UTF-16":            "\xff\xfe<\x00s\x00e\x00r\x00v\x00e\x00r\x00c\x00o\x00n\x00f\x00/\x00>\x00",
	} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			c.write(text)
			r := c.run("config", "-instance:prod", oauth)
			if r.code != 1 || !errorLine.MatchString(r.stderr) {
				t.Errorf("exit %d, stderr %q", r.code, r.stderr)
			}
			if got := c.read(); got != text {
				t.Errorf("became %q", got)
			}
		})
	}
}

func TestMissingFileIsNotCreated(t *testing.T) {
	c := newCampaign(t)
	if err := os.Remove(c.instanceFile()); err != nil {
		t.Fatal(err)
	}
	if r := c.run("config", "-instance:prod", oauth); r.code != 1 {
		t.Errorf("exit %d, want 1", r.code)
	}
	if _, err := os.Stat(c.instanceFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there again (%v)", err)
	}
}

func TestReformatKeepsWhatTheFileSays(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"reformat": true}`)
	before := meaning(t, c.read())
	c.mustRun("config", "-instance:prod", "-setimsjwtauth:O/C/T")
	text := c.read()
	if !strings.Contains(text, `    <ims authIMSClientId="Campaign_prod_console" authIMSClientSecret=`) {
		t.Error("<ims> was not re-indented and re-quoted")
	}
	if got := managed.ReplaceAllString(meaning(t, text), ""); got != managed.ReplaceAllString(before, "") {
		t.Errorf("the file says something else now:\n%s", got)
	}
	c.mustRun("config", "-instance:prod", "-setimsjwtauth:O/C/T")
	if c.read() != text {
		t.Error("formatting again changed the file")
	}

	const mixed = "<serverconf><shared><ims authIMSTAId='' x='\"'/><note> keep <b> this </b>\n</note><a\n></a>  </shared></serverconf>"
	c.write(mixed)
	c.mustRun("config", "-instance:prod", "-setimsjwtauth:O/C/T")
	const want = "<serverconf>\n  <shared>\n    <ims authIMSTAId=\"T\" x=\"&quot;\" authIMSTAClientId=\"C\"/>\n" +
		"    <note> keep <b> this </b>\n</note>\n    <a/>\n  </shared>\n</serverconf>\n"
	if got := c.read(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// meaning is the file as a parser sees it, without white space between tags.
func meaning(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	decoder, encoder := xml.NewDecoder(strings.NewReader(text)), xml.NewEncoder(&out)
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if chars, ok := token.(xml.CharData); ok && len(bytes.TrimSpace(chars)) == 0 {
			continue
		}
		if err := encoder.EncodeToken(token); err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// While nlserver writes, nobody gets a read lease on the file.
func TestFileIsOpenForWritingMeanwhile(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"hang_after_truncate": true}`)
	lease := func() error {
		file, err := os.Open(c.instanceFile())
		if err != nil {
			return err
		}
		defer file.Close()
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), syscall.F_SETLEASE, syscall.F_RDLCK); errno != 0 {
			return errno
		}
		return nil
	}
	if err := lease(); err != nil {
		skip.Unable(t, "no leases on this file system: "+err.Error())
	}
	run := c.startUntil("hang_after_truncate", "config", "-instance:prod", oauth)
	if err := lease(); err != syscall.EAGAIN {
		t.Errorf("lease during the write: %v, want EAGAIN", err)
	}
	run.signal(syscall.SIGKILL)
	run.end()
	if err := lease(); err != nil {
		t.Errorf("lease after the writer died: %v", err)
	}
}
