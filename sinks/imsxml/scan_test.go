package imsxml

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
)

// wellFormed are documents that the scanner must accept, as must xmllint.
var wellFormed = map[string]string{
	"least":                        `<a/>`,
	"UTF-8 without declaration":    "<é ü='ß'>\u20ac\U0001f600</é>",
	"byte order mark":              utf8BOM + `<a/>`,
	"mark and declaration":         utf8BOM + `<?xml version="1.0" encoding="utf-8"?><a/>`,
	"Adobe's own first line":       `<?xml version='1.0'?><serverconf/>`,
	"full declaration":             "<?xml\tversion = '1.0'\nencoding=\"ISO-8859-1\" standalone='yes' ?>\n<a/>",
	"version above":                `<?xml version="1.1"?><a/>`,
	"latin-1":                      "<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>",
	"latin-1 name":                 "<?xml version='1.0' encoding='iso-8859-1'?><\xe9 \xfc='\xdf'/>",
	"ISO-8859-15, every byte":      "<?xml version='1.0' encoding='ISO-8859-15'?><a b='\x81\x9d\xe9'/>",
	"windows-1252":                 "<?xml version='1.0' encoding='windows-1252'?><a b='\x80\xe9'/>",
	"alias":                        "<?xml version='1.0' encoding='latin1'?><a b='\x80\xe9'/>",
	"mark and latin-1":             utf8BOM + "<?xml version='1.0' encoding='iso-8859-1'?><a>é</a>",
	"stylesheet instruction first": `<?xml-stylesheet href="a"?><a/>`,
	"comments around":              "<!-- - -><ims/> --><a/><!----><?x?>\n<?y z?>",
	"instruction with a tag in it": `<a><?php echo "<b>" ?></a>`,
	"doctype":                      "<?xml version='1.0'?>\n<!DOCTYPE serverconf><serverconf/>",
	"entities of text":             `<!DOCTYPE a [<!ENTITY e "x > 'y'"> <!ENTITY f '' > <!ENTITY e "z">]><a b="&e;&f;">&e; &f;</a>`,
	"long entity":                  `<!DOCTYPE a [<!ENTITY e "` + strings.Repeat("x", 10_000) + `">]><a b="&e;"/>`,
	"CDATA":                        `<a><![CDATA[ <b> & ]] ]> ]]]></a>`,
	"CDATA end in two":             `<a>]]<b/>></a>`,
	"empty CDATA":                  `<a><![CDATA[]]></a>`,
	"white space in tags":          "<a\n  b='1'\r\n\tc = \"2\"\n></a\n>",
	"greater-than in a value":      `<a b="1>2" c='/>'/>`,
	"other quote in a value":       `<a b="'" c='"'/>`,
	"line ends in a value":         "<a b='\r\n\t'/>",
	"predefined entities":          `<a b="&amp;&lt;&gt;&quot;&apos;">&amp;&lt;&gt;&quot;&apos;</a>`,
	"character references":         `<a b="&#9;&#10;&#13;&#x20;&#xD7FF;&#xe000;&#xFFFD;&#x10000;&#x10FFFF;&#0000065;"/>`,
	"DEL and C1":                   "<a b='\x7f\u0080\u0085\u009f'/>",
	"mark as text":                 "<a>\ufeff</a>",
	"name characters":              `<_a.b-c:d1 _="" xml:lang="en"/>`,
	"same attribute, other case":   `<a b="" B=""/>`,
	"same attribute, other tag":    `<a b=""><a b=""/></a>`,
	"depth":                        strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth),
	"many attributes":              "<a" + manyAttributes(5000) + "/>",
	"wide":                         "<a>" + strings.Repeat("<b/>", 20_000) + "</a>",
}

// malformed are documents that the scanner must refuse, and where.
var malformed = map[string]struct {
	text string
	at   string // line:column
	// stricter says why xmllint accepts it all the same.
	stricter string
}{
	"empty":                       {"", "1:1", ""},
	"white space only":            {" \n ", "2:2", ""},
	"mark only":                   {utf8BOM, "1:1", ""},
	"NUL only, as after a crash":  {strings.Repeat("\x00", 4096), "1:1", ""},
	"NUL at the end":              {"<a/>\n\x00\x00", "2:1", "it reads up to a NUL"},
	"cut off in a tag":            {"<a>\n<b c='1'", "2:9", ""},
	"cut off after an attribute":  {"<a>\n<b c='1' ", "2:10", ""},
	"cut off in a name":           {"<a>\n<b", "2:3", ""},
	"cut off after <":             {"<a>\n<", "2:2", ""},
	"cut off in a value":          {"<a>\n<b c='1", "2:7", ""},
	"cut off before a value":      {"<a>\n<b c=", "2:6", ""},
	"cut off after a name":        {"<a>\n<b c", "2:5", ""},
	"cut off in text":             {"<a>\nb", "2:2", ""},
	"cut off in an end tag":       {"<a>\n</a", "2:4", ""},
	"cut off in an end tag name":  {"<abc>\n</ab", "2:1", ""},
	"cut off in a comment":        {"<a>\n<!-- ", "2:5", ""},
	"cut off at a comment's end":  {"<a/><!-- --", "1:12", ""},
	"cut off in DOCTYPE":          {"<!DOCTYPE a [<!ENTITY e 'x'>\n", "1:1", ""},
	"cut off behind DOCTYPE":      {"<!DOCTYPE a ", "1:1", ""},
	"entities without end":        {`<!DOCTYPE a [<!ENTITY e "` + strings.Repeat("x", 256) + `">]><a>` + strings.Repeat("&e;", maxExpanded/256+1) + "</a>", "1:12577", "1 MiB of them at most"},
	"cut off in CDATA":            {"<a>\n<![CDATA[ ]]", "2:1", ""},
	"cut off in an instruction":   {"<a>\n<?b ?", "2:5", ""},
	"cut off before the end tag":  {"<a><b/>\n", "2:1", ""},
	"Adobe's sample":              {"<a>\n  <mta x='1'>\n</a>", "3:1", ""},
	"tags crossed":                {"<a><b></a></b>", "1:7", ""},
	"end tag longer":              {"<a></ab>", "1:7", ""},
	"end tag shorter":             {"<ab></a>", "1:5", ""},
	"end tag in other case":       {"<a></A>", "1:4", ""},
	"end tag with attribute":      {"<a></a b=''>", "1:8", ""},
	"end tag first":               {"</a>", "1:2", ""},
	"two roots":                   {"<a/><b/>", "1:5", ""},
	"text behind the root":        {"<a/>b", "1:5", ""},
	"reference behind the root":   {"<a/>&#32;", "1:5", ""},
	"CDATA behind the root":       {"<a/><![CDATA[]]>", "1:5", ""},
	"doctype behind the root":     {"<a/><!DOCTYPE a>", "1:5", ""},
	"text before the root":        {"b<a/>", "1:1", ""},
	"attribute twice":             {"<a b='1' c='2' b='3'/>", "1:23", ""},
	"attribute twice, open tag":   {"<a b='' b=''></a>", "1:14", ""},
	"attribute twice among many":  {"<a" + manyAttributes(100) + " n7=''/>", "1:701", ""},
	"attribute without value":     {"<a b/>", "1:5", ""},
	"attribute without quotes":    {"<a b=c/>", "1:6", ""},
	"attributes without space":    {"<a b='1'c='2'/>", "1:9", ""},
	"name and quote":              {"<a'b'/>", "1:3", ""},
	"slash in a tag":              {"<a / >", "1:4", ""},
	"less-than in a value":        {"<a b='<'/>", "1:7", ""},
	"quote not closed":            {"<a b='1>\n<c d='2'/></a>", "2:1", ""},
	"ampersand in a value":        {"<a b='1&2'/>", "1:8", ""},
	"ampersand in text":           {"<a>1 & 2</a>", "1:6", ""},
	"entity not closed":           {"<a>&amp</a>", "1:4", ""},
	"entity in other case":        {"<a>&AMP;</a>", "1:4", ""},
	"undefined entity":            {"<a>&nbsp;</a>", "1:4", ""},
	"undefined entity, value":     {"<a b='&eacute;'/>", "1:7", ""},
	"reference to nothing":        {"<a>&#;</a>", "1:4", ""},
	"hexadecimal nothing":         {"<a>&#x;</a>", "1:4", ""},
	"hexadecimal in capital X":    {"<a>&#X41;</a>", "1:4", ""},
	"letters in a decimal":        {"<a>&#4a;</a>", "1:4", ""},
	"reference to NUL":            {"<a>&#0;</a>", "1:4", ""},
	"reference to a control":      {"<a b='&#x1b;'/>", "1:7", ""},
	"reference to a surrogate":    {"<a>&#xD800;</a>", "1:4", ""},
	"reference to U+FFFE":         {"<a>&#xFFFE;</a>", "1:4", ""},
	"reference beyond Unicode":    {"<a>&#x110000;</a>", "1:4", ""},
	"reference beyond 32 bits":    {"<a>&#4294967361;</a>", "1:4", ""},
	"CDATA end in text":           {"<a>]]></a>", "1:4", ""},
	"two dashes in a comment":     {"<a><!-- -- --></a>", "1:11", ""},
	"three dashes at its end":     {"<a><!-- ---></a>", "1:11", ""},
	"comment opened badly":        {"<a><!- --></a>", "1:5", ""},
	"CDATA opened badly":          {"<a><![cdata[]]></a>", "1:5", ""},
	"declaration behind a space":  {" <?xml version='1.0'?><a/>", "1:7", ""},
	"declaration behind a remark": {"<!-- --><?xml version='1.0'?><a/>", "1:14", ""},
	"declaration inside":          {"<a><?xml version='1.0'?></a>", "1:9", ""},
	"declaration in capitals":     {"<?XML version='1.0'?><a/>", "1:6", ""},
	"declaration empty":           {"<?xml?><a/>", "1:6", ""},
	"declaration without version": {"<?xml encoding='utf-8'?><a/>", "1:6", ""},
	"declaration, glued":          {"<?xml version='1.0'encoding='utf-8'?><a/>", "1:6", ""},
	"declaration, order":          {"<?xml version='1.0' standalone='no' encoding='utf-8'?><a/>", "1:6", ""},
	"declaration, other key":      {"<?xml version='1.0' secret='no'?><a/>", "1:6", ""},
	"declaration without =":       {"<?xml version '1.0'?><a/>", "1:6", ""},
	"declaration without quotes":  {"<?xml version=1.0?><a/>", "1:6", ""},
	"declaration, quote open":     {"<?xml version='1.0?><a/>", "1:6", ""},
	"declaration cut off":         {"<?xml", "1:6", ""},
	"version 2":                   {"<?xml version='2.0'?><a/>", "1:6", ""},
	"version not a number":        {"<?xml version='1.x'?><a/>", "1:6", ""},
	"standalone":                  {"<?xml version='1.0' standalone='1'?><a/>", "1:6", ""},
	"instruction without name":    {"<a><? b?></a>", "1:6", ""},
	"instruction, odd name":       {"<a><?b+?></a>", "1:7", ""},
	"doctype inside":              {"<a><!DOCTYPE a></a>", "1:5", ""},
	"name starts with a digit":    {"<1/>", "1:2", ""},
	"name starts with a dash":     {"<a -b=''/>", "1:4", ""},
	"space before a name":         {"< a/>", "1:2", ""},
	"multiplication sign as name": {"<\u00d7/>", "1:2", ""},
	"two colons, then a digit":    {"<a:b:1/>", "1:2", ""},
	"two colons":                  {"<a:b:c/>", "1:2", "for it that is an error of namespaces only"},
	"control character":           {"<a>\n<b>\x1b</b></a>", "2:4", ""},
	"control in a value":          {"<a b='\x01'/>", "1:7", ""},
	"form feed":                   {"<a\f/>", "1:3", ""},
	"byte not UTF-8":              {"<a>é\n éß\xe9</a>", "2:4", ""},
	"cut off in a character":      {"<a>\xc3", "1:4", ""},
	"UTF-8 too long":              {"<a>\xc0\xaf</a>", "1:4", ""},
	"UTF-8 of a surrogate":        {"<a>\xed\xa0\x80</a>", "1:4", ""},
	"U+FFFE":                      {"<a>\ufffd\ufffe</a>", "1:5", ""},
	"U+FFFF at the end":           {"<a/>\uffff", "1:5", ""},
	"UTF-16 without a mark":       {"<\x00?\x00x\x00m\x00l\x00", "1:2", ""},
	"EBCDIC":                      {"\x4c\x6f\xa7\x94\x93", "1:3", ""},
	"too deep":                    {strings.Repeat("<a>\n", maxDepth+2), "257:3", ""},
	"too deep, a bomb":            {strings.Repeat("<a>", 1_000_000), "1:771", ""},
}

// unsupported are documents that may be well-formed, and where the scanner meets what it does not read.
var unsupported = map[string]struct{ text, at string }{
	"doctype elsewhere":    {"<!-- -->" + `<!DOCTYPE a SYSTEM "a.dtd" [<!ENTITY e "x">]><a/>`, "1:9"},
	"entity with markup":   {`<!DOCTYPE a [<!ENTITY e "<b/>">]><a>&e;</a>`, "1:1"},
	"entity of entities":   {`<!DOCTYPE a [<!ENTITY e "x"><!ENTITY f "&e;">]><a>&f;</a>`, "1:1"},
	"entity predefined":    {`<!DOCTYPE a [<!ENTITY lt "x">]><a>&lt;</a>`, "1:1"},
	"entity in a file":     {`<!DOCTYPE a [<!ENTITY e SYSTEM "e.xml">]><a>&e;</a>`, "1:1"},
	"entity parameter":     {`<!DOCTYPE a [<!ENTITY % p SYSTEM "p"> %p;]><a/>`, "1:1"},
	"encoding unknown":     {"<?xml version='1.0' encoding='klingon'?><a/>", "1:31"},
	"encoding Shift-JIS":   {"<?xml version='1.0' encoding='Shift_JIS'?><a/>", "1:31"},
	"encoding US-ASCII":    {"<?xml version='1.0' encoding='us-ascii'?><a/>", "1:31"},
	"encoding empty":       {"<?xml version='1.0' encoding=''?><a/>", "1:31"},
	"UTF-16 declared only": {"<?xml version='1.0' encoding='UTF-16'?><a/>", "1:31"},
	"UTF-16":               {"\xff\xfe<\x00a\x00/\x00>\x00", "1:1"},
	"UTF-16, big endian":   {"\xfe\xff\x00<\x00a\x00/\x00>", "1:1"},
}

func manyAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " n%d=''", i)
	}
	return b.String()
}

func TestParseAccepts(t *testing.T) {
	for name, text := range wellFormed {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range malformed {
		t.Run(name, func(t *testing.T) { wantFault(t, c.text, credential.ErrDamaged, c.at) })
	}
	// What may be whole must not be taken for damage: then what was there before would be put in its place.
	for name, c := range unsupported {
		t.Run(name, func(t *testing.T) { wantFault(t, c.text, ErrUnsupported, c.at) })
	}
}

func wantFault(t *testing.T, text string, kind error, at string) {
	t.Helper()
	_, err := Parse([]byte(text))
	if !errors.Is(err, kind) || errors.Is(err, ErrUnsupported) == errors.Is(err, credential.ErrDamaged) {
		t.Fatalf("got error %v, want only %q", err, kind)
	}
	if got := regexp.MustCompile(`\d+:\d+`).FindString(err.Error()); got != at {
		t.Errorf("got %q, want it at %s", err, at)
	}
}

// In a damaged file a password may stand where a name should, so no error may quote the file.
func TestParseErrorsQuoteNothing(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "xml", "handmade.xml"))
	if err != nil {
		t.Fatal(err)
	}
	// Capitals with a Q, which no message has, instead of every letter.
	text = regexp.MustCompile(`[A-Za-z]+`).ReplaceAll(text, []byte("QX"))
	text = bytes.Replace(text, []byte("<?QX QX="), []byte("<?xml version="), 1)
	refused := 0
	for _, mutant := range mutants(text, 5000) {
		if _, err := Parse(mutant); err != nil {
			refused++
			if strings.Contains(err.Error(), "Q") {
				t.Fatalf("the error %q quotes the file", err)
			}
		}
	}
	if refused < 1000 {
		t.Errorf("only %d mutants were refused, too few to show anything", refused)
	}
}

func TestAttributes(t *testing.T) {
	type attributes = credential.Attributes
	in := func(inside string) string { return "<serverconf>" + inside + "</serverconf>" }
	for name, c := range map[string]struct {
		text string
		want attributes
	}{
		"none":                 {in("<shared/>"), nil},
		"ims without any":      {in("<shared><ims/></shared>"), attributes{}},
		"order of the file":    {in("<shared><ims b='1' a='2'/></shared>"), attributes{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}}},
		"entity":               {`<!DOCTYPE a [<!ENTITY e "x">]>` + in("<shared><ims a='1&e;2'/></shared>"), attributes{{Name: "a", Value: "1x2"}}},
		"empty is not absent":  {in("<shared><ims a=''/></shared>"), attributes{{Name: "a"}}},
		"other root spelling":  {"<serverConf><shared><ims a='1'/></shared></serverConf>", attributes{{Name: "a", Value: "1"}}},
		"other root":           {"<config><shared><ims a='1'/></shared></config>", nil},
		"root in capitals":     {"<ServerConf><shared><ims a='1'/></shared></ServerConf>", nil},
		"ims with content":     {in("<shared><ims a='1'><x/></ims></shared>"), attributes{{Name: "a", Value: "1"}}},
		"ims in root":          {in("<shared/><ims a='1'/>"), nil},
		"ims deeper":           {in("<shared><x><ims a='1'/></x></shared>"), nil},
		"ims in deeper shared": {in("<x><shared><ims a='1'/></shared></x>"), nil},
		"ims behind shared":    {in("<shared><y/></shared><x><ims a='1'/></x>"), nil},
		"ims below ims":        {in("<shared><ims a='1'><ims a='2'/></ims></shared>"), attributes{{Name: "a", Value: "1"}}},
		"longer name":          {in("<shared><imsx a='1'/></shared>"), nil},
		"prefixed":             {in("<shared><x:ims a='1'/></shared>"), nil},
		"second shared has it": {in("<shared><a/></shared><shared><ims a='1'/></shared>"), attributes{{Name: "a", Value: "1"}}},
		"first of two":         {in("<shared><ims a='1'/><ims a='2'/></shared>"), attributes{{Name: "a", Value: "1"}}},
		"decoys": {in("<!--<shared><ims a='1'/></shared>--><shared b=\"&lt;ims a='1'/>\"><?x <ims a='1'/>?>" +
			"<![CDATA[<ims a='1'/>]]><!--<ims a='1'/>--></shared>"), nil},
		"unescaped": {in("<shared><ims a='&amp;&lt;&gt;&quot;&apos;&#65;&#x42;&#x1F600;é'/></shared>"), attributes{{Name: "a", Value: "&<>\"'AB\U0001f600é"}}},
		"once only": {in("<shared><ims a='&amp;lt;'/></shared>"), attributes{{Name: "a", Value: "&lt;"}}},
		// Literal white space becomes a space each, a CR LF one; what is written as a reference stays.
		"normalised": {in("<shared><ims a=' \t\n\r\n\r&#9;&#10;&#13; '/></shared>"), attributes{{Name: "a", Value: "     \t\n\r "}}},
		"latin-1":    {"<?xml version='1.0' encoding='ISO-8859-1'?>" + in("<shared><ims \xe9='\xfc&#252;'/></shared>"), attributes{{Name: "é", Value: "üü"}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := mustParse(t, c.text)
			if got := d.Attributes(); !slices.EqualFunc(got, c.want, credential.Attribute.Same) || (got == nil) != (c.want == nil) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

func mustParse(t testing.TB, text string) *Document {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

// realistic is about 8 KiB, as the file of an instance in use is.
func realistic(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "xml", "handmade.xml"))
	if err != nil {
		t.Fatal(err)
	}
	const end = "</serverconf>\n"
	body := bytes.TrimSuffix(text, []byte(end))
	for i := 0; len(body) < 8<<10; i++ {
		body = fmt.Appendf(body, "  <!-- relay %d -->\n  <mta name='relay%d' autoStart=\"false\" port=\"78%02d\">\n"+
			"    <master dataBasePoolPeriodSec=\"30\" nextRuleSec='1200' startDelay=\"&quot;soon&quot;\"/>\n  </mta>\n", i, i, i)
	}
	return append(body, end...)
}

func BenchmarkParse(b *testing.B) {
	file := realistic(b)
	for name, text := range map[string][]byte{
		"8KiB": file,
		// These grow in proportion if no step is quadratic.
		"attributes-10k":  []byte("<a" + manyAttributes(10_000) + "/>"),
		"attributes-100k": []byte("<a" + manyAttributes(100_000) + "/>"),
		"ampersands-1MiB": []byte("<a>" + strings.Repeat("&amp;", 1<<20/5) + "</a>"),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("8KiB-and-splice", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		b.ReportAllocs()
		for b.Loop() {
			d, err := Parse(file)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := d.Set(goldenWant); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestElements: the attributes of each element of a name, and of no comment.
func TestElements(t *testing.T) {
	t.Parallel()
	const text = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<serverconf><!-- <pipelined authType='no'/> --><pipelined authType='a&amp;b' x=\"\xe4\"/><web>" +
		"<pipelined></pipelined></web></serverconf>"
	found, err := Elements([]byte(text), "pipelined")
	if err != nil || len(found) != 2 || found[0]["authType"] != "a&b" || found[0]["x"] != "ä" || len(found[1]) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := Elements([]byte(text[:len(text)-5]), "pipelined"); err == nil {
		t.Error("half a file is taken")
	}
}
