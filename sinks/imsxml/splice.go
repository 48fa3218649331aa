package imsxml

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"campaign-credsync/internal/credential"
)

// edit replaces bytes of a document.
type edit struct {
	at   span
	text string
}

// Set returns the file with the attributes of <ims> as want has them. A value that differs is replaced in place by the bytes in
// which it was written when it was seen, or, where these are not known, between the quotes found there. An attribute that is missing
// is added behind the last one; one wanted absent is removed with the white space in front of it. A missing <ims> becomes the first
// child of <shared>. Attributes that want does not name, and every other byte, stay as they are; when nothing differs the result
// is the very slice that was parsed. Of two attributes of one name in want the first counts.
//
// The error wraps [credential.ErrCannotSplice]: there is no place for <ims>, or what is wanted cannot be written in XML.
func (d *Document) Set(want credential.Attributes) ([]byte, error) {
	var changes []edit
	var added strings.Builder
	lead := d.leadOfAdded()
	there := make(map[string]attribute, len(d.imsAttributes))
	for _, a := range d.imsAttributes {
		there[d.nameOf(a)] = a
	}
	done := make(map[string]bool, len(want))
	for _, w := range want {
		if done[w.Name] {
			continue
		}
		done[w.Name] = true
		have, found := there[w.Name]
		switch {
		case !found && w.Absent:
		case !found:
			text, err := d.newAttribute(w)
			if err != nil {
				return nil, err
			}
			added.WriteString(lead + text)
		case w.Absent:
			changes = append(changes, edit{at: span{have.lead, have.raw().end}})
		case d.valueOf(have) != w.Value:
			text, err := d.quoted(w, d.data[have.value.end])
			if err != nil {
				return nil, err
			}
			changes = append(changes, edit{at: have.raw(), text: text})
		}
	}
	if added.Len() > 0 {
		addition, err := d.addition(added.String())
		if err != nil {
			return nil, err
		}
		changes = append(changes, addition)
	}
	return d.edited(changes), nil
}

// edited returns the bytes with changes made, which must not overlap.
func (d *Document) edited(changes []edit) []byte {
	if len(changes) == 0 {
		return d.data
	}
	slices.SortStableFunc(changes, func(a, b edit) int { return a.at.start - b.at.start })
	size := len(d.data)
	for _, c := range changes {
		size += len(c.text)
	}
	result := make([]byte, 0, size)
	copied := 0
	for _, c := range changes {
		result = append(result, d.data[copied:c.at.start]...)
		result = append(result, c.text...)
		copied = c.at.end
	}
	return append(result, d.data[copied:]...)
}

// leadOfAdded returns the white space to put in front of an added attribute: what stands in front of the last one, so that
// attributes written one to a line stay so, and what was removed comes back as it was.
func (d *Document) leadOfAdded() string {
	if n := len(d.imsAttributes); n > 0 {
		last := d.imsAttributes[n-1]
		return string(d.data[last.lead:last.name.start])
	}
	return " "
}

// addition returns the change that adds attributes, each with its white space in front, to <ims>; where there is none, it
// adds that with them.
func (d *Document) addition(attributes string) (edit, error) {
	if d.ims.found() {
		behind := d.ims.nameEnd
		if n := len(d.imsAttributes); n > 0 {
			behind = d.imsAttributes[n-1].raw().end
		}
		return edit{at: span{behind, behind}, text: attributes}, nil
	}
	if !d.serverConf {
		return edit{}, fmt.Errorf("%w: <ims> is missing, and the root element is not <serverconf>", credential.ErrCannotSplice)
	}
	if !d.shared.found() {
		return edit{}, fmt.Errorf("%w: <ims> is missing, and there is no <shared> in the root element to put it into", credential.ErrCannotSplice)
	}
	ims := "<ims" + attributes + "/>"
	if d.shared.selfClose {
		slash := d.shared.end - len("/>")
		return edit{at: span{slash, d.shared.end}, text: ">" + ims + "</shared>"}, nil
	}
	return edit{at: span{d.shared.end, d.shared.end}, text: d.indentInShared() + ims}, nil
}

// indentInShared returns the white space between <shared> and the markup that follows it. Before text there is none, as
// white space may mean something there.
func (d *Document) indentInShared() string {
	rest := d.data[d.shared.end:]
	text := bytes.TrimLeft(rest, " \t\r\n")
	if len(text) == 0 || text[0] != '<' {
		return ""
	}
	return string(rest[:len(rest)-len(text)])
}

// newAttribute writes an attribute that is not there yet.
func (d *Document) newAttribute(a credential.Attribute) (string, error) {
	if a.Name == "" || charsetOpaque.nameLength([]byte(a.Name)) != len(a.Name) {
		return "", fmt.Errorf("%w: attribute %q: no name of ASCII characters", credential.ErrCannotSplice, a.Name)
	}
	value, err := d.quoted(a, '"')
	return a.Name + "=" + value, err
}

// quoted returns the value of a with its quotes, as it was written when it was seen, else between quotes of the given kind.
func (d *Document) quoted(a credential.Attribute, quote byte) (string, error) {
	if d.means(a.Raw, a.Value) {
		return string(a.Raw), nil
	}
	value, err := escape(a, quote, d.charset)
	return string(quote) + value + string(quote), err
}

// means reports whether raw is a whole value with its quotes, and reads as value in this file. It may come from a record that an
// older release went on with, or from the time before somebody changed the file's encoding.
func (d *Document) means(raw credential.Bytes, value string) bool {
	s := scanner{data: []byte(raw), doc: d}
	inside, err := s.value()
	return err == nil && s.pos == len(s.data) && d.charset.firstIllegal(s.data) < 0 && d.meaning(inside.of(s.data)) == value
}

// escape writes the value of a for a place between two quotes. All of it is ASCII, so that it holds in any encoding.
func escape(a credential.Attribute, quote byte, c charset) (string, error) {
	var b strings.Builder
	for _, r := range a.Value {
		switch {
		case r == utf8.RuneError || !isXMLChar(r) || c.opaque() && 0x80 <= r && r <= 0xff:
			// In a charsetOpaque it may be such a byte read from this very file, whose meaning is not known.
			return "", fmt.Errorf("%w: attribute %q: its value holds a character that XML or the file's encoding does not have",
				credential.ErrCannotSplice, a.Name)
		case strings.ContainsRune("&<>", r) || r == rune(quote):
			b.WriteString(markup[r])
		case r < ' ' || r > '~':
			b.WriteString("&#" + strconv.Itoa(int(r)) + ";")
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}

var markup = map[rune]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '"': "&quot;", '\'': "&apos;"}
