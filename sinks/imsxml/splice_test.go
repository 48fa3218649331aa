package imsxml

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
)

// goldenWant is what the files in testdata/xml are given.
var goldenWant = credential.Attributes{
	{Name: "authIMSTAClientId", Value: "new-client"},
	{Name: "authIMSTAClientSecret", Value: "@k+/=="},
	{Name: "authIMSTAId", Value: "new@techacct.adobe.com"},
	{Name: "authIMSTAPrivateKey", Absent: true},
}

// Whole files, as they come from installers and administrators, byte for byte.
func TestSetFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "xml", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/xml: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, "xml") + "want")
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(text)
			got, err := mustParse(t, string(text)).Set(goldenWant)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if !bytes.Equal(text, before) {
				t.Error("the bytes that were scanned were changed")
			}
		})
	}
}

func TestSet(t *testing.T) {
	type attributes = credential.Attributes
	set := func(name, value string) credential.Attribute { return credential.Attribute{Name: name, Value: value} }
	drop := func(name string) credential.Attribute { return credential.Attribute{Name: name, Absent: true} }
	for name, c := range map[string]struct {
		shared string // what stands in <serverconf>
		want   attributes
		result string
	}{
		"in place":                {`<shared><ims a="1" b="2"/></shared>`, attributes{set("a", "x")}, `<shared><ims a="x" b="2"/></shared>`},
		"single quotes stay":      {`<shared><ims a='1'/></shared>`, attributes{set("a", "x")}, `<shared><ims a='x'/></shared>`},
		"space around = stays":    {"<shared><ims a\n=\t'1' /></shared>", attributes{set("a", "x")}, "<shared><ims a\n=\t'x' /></shared>"},
		"open element":            {`<shared><ims a="1"></ims></shared>`, attributes{set("a", "x"), set("b", "y")}, `<shared><ims a="x" b="y"></ims></shared>`},
		"emptied":                 {`<shared><ims a=""/></shared>`, attributes{set("a", "x")}, `<shared><ims a="x"/></shared>`},
		"empty is wanted":         {`<shared><ims a="1"/></shared>`, attributes{set("a", "")}, `<shared><ims a=""/></shared>`},
		"empty is added":          {`<shared><ims/></shared>`, attributes{set("a", "")}, `<shared><ims a=""/></shared>`},
		"several at once":         {`<shared><ims a="1" b="22" c="333"/></shared>`, attributes{set("c", "z"), set("a", "long"), drop("b")}, `<shared><ims a="long" c="z"/></shared>`},
		"greater-than in a value": {`<shared><ims x="/>" a="1>2" y='"'/></shared>`, attributes{set("a", "x")}, `<shared><ims x="/>" a="x" y='"'/></shared>`},
		// "a" also ends "ba", and stands inside a value.
		"no part of a name": {`<shared><ims ba="1" c=" a='2' " a="3"/></shared>`, attributes{set("a", "x")}, `<shared><ims ba="1" c=" a='2' " a="x"/></shared>`},

		"added behind the last":  {`<shared><ims b='2'  /></shared>`, attributes{set("a", "x"), set("c", "y")}, `<shared><ims b='2' a="x" c="y"  /></shared>`},
		"added one to a line":    {"<shared><ims\r\n\tb='2'\r\n/></shared>", attributes{set("a", "x")}, "<shared><ims\r\n\tb='2' a=\"x\"\r\n/></shared>"},
		"added to none":          {"<shared><ims\n></ims></shared>", attributes{set("a", "x")}, "<shared><ims a=\"x\"\n></ims></shared>"},
		"removed":                {"<shared><ims a='1'\n b='2'\t/></shared>", attributes{drop("b")}, "<shared><ims a='1'\t/></shared>"},
		"removed, all":           {`<shared><ims a="1" b="2" /></shared>`, attributes{drop("b"), drop("a")}, `<shared><ims /></shared>`},
		"removed last and added": {"<shared><ims a='1'\n b='2'/></shared>", attributes{drop("b"), set("c", "x")}, "<shared><ims a='1' c=\"x\"/></shared>"},
		"absent already":         {`<shared><ims a="1"/></shared>`, attributes{drop("b")}, `<shared><ims a="1"/></shared>`},
		"absent without ims":     {`<shared/>`, attributes{drop("b")}, `<shared/>`},
		"nothing wanted":         {`<shared/>`, nil, `<shared/>`},

		"escaped for double quotes": {`<shared><ims a="1"/></shared>`, attributes{set("a", `&<>"'é`+"\t\n\r")}, `<shared><ims a="&amp;&lt;&gt;&#34;&#39;é&#x9;&#xA;&#xD;"/></shared>`},
		"escaped for single quotes": {`<shared><ims a='1'/></shared>`, attributes{set("a", `"'`+"\U0001f600\x7f")}, `<shared><ims a='&#34;&#39;` + "\U0001f600\x7f'/></shared>"},
		// Another way to write the same value is no difference.
		"same in other words": {`<shared><ims a='&#x78;&gt;>'/></shared>`, attributes{set("a", "x>>")}, `<shared><ims a='&#x78;&gt;>'/></shared>`},
		// A parser gives a space for a line end, so the value differs.
		"line end lost": {"<shared><ims a='x\ny'/></shared>", attributes{set("a", "x\ny")}, "<shared><ims a='x&#xA;y'/></shared>"},

		"ims inserted":              {"\n  <shared>\n    <x/>\n  </shared>\n", attributes{set("a", "1"), set("b", "2")}, "\n  <shared><ims a=\"1\" b=\"2\"/>\n    <x/>\n  </shared>\n"},
		"ims inserted, no space":    {`<shared><x/></shared>`, attributes{set("a", "1")}, `<shared><ims a="1"/><x/></shared>`},
		"ims inserted, empty":       {`<shared></shared>`, attributes{set("a", "1")}, `<shared><ims a="1"/></shared>`},
		"ims inserted before text":  {"<shared> \n text</shared>", attributes{set("a", "1")}, "<shared><ims a=\"1\"/> \n text</shared>"},
		"ims inserted, self-closed": {`<shared b='/>' /><x/>`, attributes{set("a", "1")}, `<shared b='/>' ><ims a="1"/></shared><x/>`},
		"ims inserted into first":   {`<x/><shared/><shared></shared>`, attributes{set("a", "1")}, `<x/><shared><ims a="1"/></shared><shared></shared>`},
		"ims of second shared":      {`<shared/><shared><ims/></shared>`, attributes{set("a", "1")}, `<shared/><shared><ims a="1"/></shared>`},
		"decoys stay": {"<!--<shared><ims a='0'/></shared>--><shared><![CDATA[<ims a='0'/>]]><x><ims a='0'/></x></shared><ims a='0'/>", attributes{set("a", "1")},
			"<!--<shared><ims a='0'/></shared>--><shared><ims a=\"1\"/><![CDATA[<ims a='0'/>]]><x><ims a='0'/></x></shared><ims a='0'/>"},
		"second ims stays": {`<shared><ims a="1"/><ims a="1"/></shared>`, attributes{set("a", "x")}, `<shared><ims a="x"/><ims a="1"/></shared>`},
	} {
		t.Run(name, func(t *testing.T) {
			text := "<serverconf>" + c.shared + "</serverconf>"
			got, err := mustParse(t, text).Set(c.want)
			if err != nil {
				t.Fatal(err)
			}
			if want := "<serverconf>" + c.result + "</serverconf>"; string(got) != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestCannotSet(t *testing.T) {
	const ims, hidden = `<serverconf><shared><ims a="1"/></shared></serverconf>`, "hunter2"
	for name, c := range map[string]struct {
		text, attribute, value string
	}{
		"no shared":           {`<serverconf><x/></serverconf>`, "a", hidden},
		"shared deeper":       {`<serverconf><x><shared/></x></serverconf>`, "a", hidden},
		"shared in a comment": {`<serverconf><!--<shared/>--></serverconf>`, "a", hidden},
		"other root":          {`<config><shared><ims a="1"/></shared></config>`, "a", hidden},
		"name with a space":   {ims, "b c", hidden},
		"name with markup":    {ims, `b="2" c`, hidden},
		"no name":             {ims, "", hidden},
		"control character":   {ims, "a", hidden + "\x01"},
		"NUL":                 {ims, "b", hidden + "\x00"},
		"not UTF-8":           {ims, "a", hidden + "\xe9"},
		"U+FFFF":              {ims, "a", hidden + "\uffff"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mustParse(t, c.text).Set(credential.Attributes{{Name: c.attribute, Value: c.value}})
			if !errors.Is(err, credential.ErrCannotSplice) {
				t.Fatalf("got %s and error %v, want ErrCannotSplice", got, err)
			}
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("the error %q holds the value", err)
			}
		})
	}
}

// What is not to be changed keeps its bytes, and a character that the encoding does not have is written as a reference.
func TestSetSingleByte(t *testing.T) {
	const text = "<?xml version='1.0' encoding='windows-1252'?><serverconf><shared><ims a='\xe9' b='\xea'/></shared></serverconf>"
	d := mustParse(t, text)
	want := append(d.Attributes(), credential.Attribute{Name: "c", Value: "\u0439"})
	got, err := d.Set(want)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(text, "'\xea'", "'\xea' c=\"&#1081;\"", 1); string(got) != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}
