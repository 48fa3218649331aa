package imsxml

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"campaign-credsync/test/skip"
)

// xmllint reports which of texts it finds malformed, by their index.
func xmllint(t *testing.T, texts [][]byte) map[int]string {
	t.Helper()
	malformed := map[int]string{}
	dir := t.TempDir()
	for first := 0; first < len(texts); first += 500 {
		batch := texts[first:min(first+500, len(texts))]
		var files []string
		for i, text := range batch {
			file := filepath.Join(dir, strconv.Itoa(first+i)+".xml")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		// --nonet: a DOCTYPE from a mutation must fetch nothing.
		lint := func(files ...string) ([]byte, error) {
			return exec.CommandContext(t.Context(), "xmllint", append([]string{"--noout", "--nonet"}, files...)...).CombinedOutput()
		}
		if _, err := lint(files...); err == nil {
			continue
		}
		for i, file := range files {
			if output, err := lint(file); err != nil {
				malformed[first+i] = fmt.Sprintf("%v: %s", err, output)
			}
		}
	}
	return malformed
}

// needXMLLint skips the test where libxml2's tool is not installed, but not where the whole suite must run.
func needXMLLint(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("xmllint"); err != nil {
		skip.Unable(t, "xmllint is not on PATH (package libxml2-utils)")
	}
}

// The tables say what is well-formed; libxml2 must say the same.
func TestAgreesWithLibxml2OnTables(t *testing.T) {
	needXMLLint(t)
	var names []string
	var texts [][]byte
	for name, text := range wellFormed {
		names, texts = append(names, name), append(texts, []byte(text))
	}
	for i, why := range xmllint(t, texts) {
		t.Errorf("%s: accepted by the table, not by xmllint: %s", names[i], why)
	}
	names, texts = nil, nil
	for name, c := range malformed {
		names, texts = append(names, name), append(texts, []byte(c.text))
	}
	refused := xmllint(t, texts)
	for i, name := range names {
		if _, ok := refused[i]; ok != (malformed[name].stricter == "") {
			t.Errorf("%s: refused by xmllint: %v, stricter on purpose: %q", name, ok, malformed[name].stricter)
		}
	}
}

// Every byte of every encoding, so that one that libxml2 cannot convert is not taken for text.
func TestAgreesWithLibxml2OnEncodings(t *testing.T) {
	needXMLLint(t)
	encodings := slices.Collect(maps.Keys(charsets))
	var names []string
	var texts [][]byte
	for _, encoding := range encodings {
		accepted := 0
		for b := 0x80; b <= 0xff; b++ {
			text := fmt.Appendf(nil, "<?xml version='1.0' encoding='%s'?>\n<a b='", encoding)
			text = append(append(text, byte(b)), " '/>"...)
			if _, err := Parse(text); err == nil {
				accepted++
				d := mustParse(t, string(text))
				if written := encode(d.charset, []byte(d.text)); !bytes.Equal(written, text) {
					t.Errorf("%s 0x%x: is written as %q", encoding, b, written)
				}
				names, texts = append(names, fmt.Sprintf("%s 0x%x", encoding, b)), append(texts, text)
			}
		}
		if charsets[encoding] != nil && accepted < 123 {
			t.Errorf("of %s only %d bytes are accepted", encoding, accepted)
		}
	}
	for i, why := range xmllint(t, texts) {
		t.Errorf("%s: accepted here, not by xmllint: %s", names[i], why)
	}
}

// Whatever the scanner takes for well-formed may be written back; so libxml2 must take it for that too.
func TestAgreesWithLibxml2OnMutants(t *testing.T) {
	needXMLLint(t)
	files, err := filepath.Glob(filepath.Join("testdata", "xml", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/xml: %v", err)
	}
	var seeds [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, text)
	}
	for _, text := range wellFormed {
		if len(text) < 1000 {
			seeds = append(seeds, []byte(text))
		}
	}
	slices.SortFunc(seeds, bytes.Compare) // the order of a map would give other mutants each time
	seeds = append(seeds, fuzzCorpus(t)...)

	var accepted, refused [][]byte
	for _, seed := range seeds {
		for _, mutant := range append(mutants(seed, 150), seed) {
			if _, err := Parse(mutant); err == nil {
				accepted = append(accepted, mutant)
			} else if len(refused) < 400 {
				refused = append(refused, mutant)
			}
		}
	}
	for i, why := range xmllint(t, accepted) {
		t.Errorf("accepted here, not by xmllint: %s\n%q", why, accepted[i])
	}
	alone := len(refused) - len(xmllint(t, refused))
	t.Logf("%d mutants accepted by both; of %d refused here xmllint accepts %d", len(accepted), len(refused), alone)
	if len(accepted) < 1000 {
		t.Error("too few mutants are well-formed to show anything")
	}
}

// fuzzCorpus returns the files that FuzzSet found worth keeping.
func fuzzCorpus(t *testing.T) [][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzSet", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus in testdata/fuzz: %v", err)
	}
	var texts [][]byte
	for _, file := range files {
		entry, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// "go test fuzz v1", then one argument to a line: []byte("…"), string("…"), …
		line := strings.Split(string(entry), "\n")[1]
		text, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(line, "[]byte("), ")"))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		texts = append(texts, []byte(text))
	}
	return texts
}

// mutants returns n texts that differ from text in one to three places, the same ones each time.
func mutants(text []byte, n int) [][]byte {
	random := rand.New(rand.NewPCG(uint64(len(text)), uint64(n)))
	pieces := []string{"<", ">", "/", "/>", "</", "'", `"`, "=", "&", ";", "&amp;", "&#9;", "&#x0;", "&lt", " ", "\n", "\r\n", "\t",
		"-", "--", "-->", "<!--", "]]>", "<![CDATA[", "?>", "<?", "<?xml version='1.0'?>", "<a/>", "<ims/>", "</shared>", "<shared>",
		"a", ":", ".", "é", "\u00d7", "\ufffe", "\x00", "\x0b", "\x7f", "\x80", "\x81", "\xe9", "\xff", "!", "[", "]", "x='1'",
		" x='1'", " x='1' x='2'", "xmlns='u'", "xml:id='1'"}
	all := make([][]byte, 0, n)
	for range n {
		mutant := bytes.Clone(text)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(mutant) + 1)
			end := min(len(mutant), at+random.IntN(12))
			switch random.IntN(5) {
			case 0: // insert
				mutant = slices.Insert(mutant, at, []byte(pieces[random.IntN(len(pieces))])...)
			case 1: // replace
				mutant = slices.Replace(mutant, at, min(len(mutant), at+1), []byte(pieces[random.IntN(len(pieces))])...)
			case 2: // delete
				mutant = slices.Delete(mutant, at, end)
			case 3: // repeat elsewhere
				piece := bytes.Clone(mutant[at:end])
				mutant = slices.Insert(mutant, random.IntN(len(mutant)+1), piece...)
			case 4: // cut off, rarely
				if random.IntN(4) == 0 {
					mutant = mutant[:at]
				}
			}
		}
		all = append(all, mutant)
	}
	return all
}
