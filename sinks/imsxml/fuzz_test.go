package imsxml

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
)

// FuzzSet holds splice to what it promises, for any file and any credential. What it compares with is found by
// other means than the scanner: regular expressions for the bytes, encoding/xml for the values.
func FuzzSet(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "xml", "*.xml"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no files in testdata/xml: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "client", "@a+b/c==", true)
	}
	for _, text := range wellFormed {
		if len(text) < 1000 {
			f.Add([]byte("<serverconf><shared>"+text+"</shared></serverconf>"), "<&>\"'", "\t\r\n é\U0001f600", false)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, clientID, secret string, dropID bool) {
		checkSet(t, text, credential.Attributes{
			{Name: "authIMSTAClientId", Value: clientID},
			{Name: "authIMSTAClientSecret", Value: secret},
			{Name: "authIMSTAId", Value: idOrNone(dropID), Absent: dropID},
			{Name: "authIMSTAPrivateKey", Absent: true},
		})
	})
}

func idOrNone(none bool) string {
	if none {
		return ""
	}
	return "x@techacct.adobe.com"
}

func checkSet(t *testing.T, text []byte, want credential.Attributes) {
	t.Helper()
	original := bytes.Clone(text)
	d, err := Parse(text)
	if err != nil {
		return
	}
	same, err := d.Set(d.Attributes())
	if err != nil || !bytes.Equal(same, text) {
		t.Fatalf("splicing in what is there changed it to\n%q, error %v", same, err)
	}
	got, err := d.Set(want)
	if !bytes.Equal(text, original) {
		t.Fatal("the bytes that were scanned were changed")
	}
	if err != nil {
		return
	}
	again, err := Parse(got)
	if err != nil {
		t.Fatalf("the result does not scan: %v\n%q", err, got)
	}
	if names := credential.Drift(want, again.Attributes()); len(names) > 0 {
		t.Fatalf("%v differ after the splice\n%q", names, got)
	}
	twice, err := again.Set(want)
	if err != nil || !bytes.Equal(twice, got) {
		t.Fatalf("a second splice changed it to\n%q, error %v", twice, err)
	}
	was := d.Attributes().Select(want.Names())
	back, err := again.Set(was)
	if err != nil {
		t.Fatalf("what was there cannot be put back: %v\n%q", err, got)
	}
	reread, err := Parse(back)
	if err != nil {
		t.Fatalf("what was put back does not scan: %v\n%q", err, back)
	}
	for i, now := range reread.Attributes().Select(want.Names()) {
		if !now.Same(was[i]) || !bytes.Equal(now.Raw, was[i].Raw) {
			t.Fatalf("put back as %+v, was %+v\n%q\n%q", now, was[i], text, back)
		}
	}
	if what := othersTouched(text, got, want); what != "" {
		t.Fatalf("%s; before\n%q\nafter\n%q", what, text, got)
	}
	if _, _, err := readIMS(text); err != nil {
		return // encoding/xml does not know all encodings and names
	}
	read, found, err := readIMS(got)
	if err != nil {
		t.Fatalf("encoding/xml does not read the result: %v\n%q", err, got)
	}
	for _, w := range want {
		// What was there before is in the file's own words, in which encoding/xml does not normalise white space.
		if have := d.Attributes().Get(w.Name); have.Same(w) {
			continue
		}
		if found && !read.Get(w.Name).Same(w) {
			t.Fatalf("encoding/xml reads %+v, want %+v\n%q", read.Get(w.Name), w, got)
		}
	}
}

// readIMS reads the attributes of <ims> with encoding/xml.
func readIMS(text []byte) (attributes credential.Attributes, found bool, err error) {
	decoder := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(text, []byte(utf8BOM))))
	decoder.CharsetReader = func(label string, r io.Reader) (io.Reader, error) {
		raw, err := io.ReadAll(r)
		if slices.Contains([]string{"utf8", "ascii", "us-ascii"}, strings.ToLower(label)) {
			return bytes.NewReader(raw), err
		}
		var b strings.Builder
		for _, char := range raw {
			b.WriteRune(rune(char))
		}
		return strings.NewReader(b.String()), err
	}
	var path []string
	for {
		token, err := decoder.RawToken()
		if err == io.EOF {
			return attributes, found, nil
		}
		if err != nil {
			return nil, false, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			path = append(path, rawXMLName(token.Name))
			if found || !isIMSPath(path) {
				continue
			}
			found = true
			for _, a := range token.Attr {
				attributes = append(attributes, credential.Attribute{Name: rawXMLName(a.Name), Value: a.Value})
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
}

func rawXMLName(name xml.Name) string {
	if name.Space != "" {
		return name.Space + ":" + name.Local
	}
	return name.Local
}

func isIMSPath(path []string) bool {
	joined := strings.Join(path, "/")
	return joined == "serverconf/shared/ims" || joined == "serverConf/shared/ims"
}

var (
	xmlMarkup = regexp.MustCompile(`(?s)<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|` +
		`<!DOCTYPE(?:"[^"]*"|'[^']*'|[^>\["'])*(?:\[(?:<!--.*?-->|<\?.*?\?>|"[^"]*"|'[^']*'|[^\]"'])*\]\s*)?>|` +
		`<(?:"[^"]*"|'[^']*'|[^>"'])*>`)
	xmlTagName      = regexp.MustCompile(`^</?([^\s/>]+)`)
	xmlTagAttribute = regexp.MustCompile(`\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')`)
)

// xmlTags finds the tags of the first <ims> where it counts, and of the first <shared>; nil where there is none.
func xmlTags(text []byte) (ims, shared []int) {
	var path []string
	for _, at := range xmlMarkup.FindAllIndex(text, -1) {
		tag := text[at[0]:at[1]]
		if tag[1] == '!' || tag[1] == '?' {
			continue
		}
		if tag[1] == '/' {
			path = path[:len(path)-1]
			continue
		}
		path = append(path, string(xmlTagName.FindSubmatch(tag)[1]))
		if ims == nil && isIMSPath(path) {
			ims = at
		}
		if shared == nil && isIMSPath(append(path[:len(path):len(path)], "ims")) {
			shared = at
		}
		if bytes.HasSuffix(tag, []byte("/>")) {
			path = path[:len(path)-1]
		}
	}
	return ims, shared
}

// othersTouched tells which bytes that are not in want differ between before and after, or "".
func othersTouched(before, after []byte, want credential.Attributes) string {
	others := func(tag []byte) string {
		return string(xmlTagAttribute.ReplaceAllFunc(tag, func(attribute []byte) []byte {
			name := string(xmlTagAttribute.FindSubmatch(attribute)[1])
			if slices.ContainsFunc(want, func(w credential.Attribute) bool { return w.Name == name }) {
				return nil
			}
			return attribute
		}))
	}
	ims, shared := xmlTags(before)
	imsAfter, _ := xmlTags(after)
	if imsAfter == nil {
		if !bytes.Equal(before, after) {
			return "without <ims>, something changed"
		}
		return ""
	}
	tag := after[imsAfter[0]:imsAfter[1]]
	front, back := after[:imsAfter[0]], after[imsAfter[1]:]
	if ims == nil {
		if others(tag) != "<ims/>" {
			return fmt.Sprintf("the new <ims> has more than was wanted: %s", tag)
		}
		return insertionTouched(before, front, back, shared)
	}
	if !bytes.Equal(front, before[:ims[0]]) || !bytes.Equal(back, before[ims[1]:]) {
		return "something outside <ims> changed"
	}
	if was, is := others(before[ims[0]:ims[1]]), others(tag); was != is {
		return fmt.Sprintf("inside <ims>, %q became %q", was, is)
	}
	return ""
}

// insertionTouched compares before with what stands in front of a new <ims> and behind it.
func insertionTouched(before, front, back []byte, shared []int) string {
	head, tail := before[:shared[1]], before[shared[1]:]
	if opened, selfClosed := bytes.CutSuffix(head, []byte("/>")); selfClosed {
		if string(front) != string(opened)+">" || string(back) != "</shared>"+string(tail) {
			return "opening <shared/> changed something"
		}
		return ""
	}
	indent, ok := bytes.CutPrefix(front, head)
	if !ok || len(bytes.TrimSpace(indent)) > 0 || !bytes.Equal(back, tail) {
		return "inserting <ims> changed something"
	}
	if len(indent) > 0 && !bytes.HasPrefix(tail, append(bytes.Clone(indent), '<')) {
		return "<ims> is not indented as what follows it"
	}
	return ""
}
