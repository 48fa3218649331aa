package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

type nameValue struct{ name, value string }

// spelling writes a value for a place between quotes.
type spelling func(value string) string

// oddSpelling is legal and unusual: the first character as a reference, and a
// line end in a ciphertext, which a parser takes for a space.
func oddSpelling(value string) string {
	if value == "" {
		return ""
	}
	first, rest := fmt.Sprintf("&#x%x;", value[0]), value[1:]
	if value[0] != '@' {
		return first + escapeValue(rest)
	}
	half := len(rest) / 2
	return first + escapeValue(rest[:half]) + "\r\n" + escapeValue(rest[half:])
}

// setIMSAttributes sets attributes of <serverconf><shared><ims> and keeps every
// other byte. What is missing of the way to <ims> is created.
func setIMSAttributes(raw []byte, values []nameValue, spell spelling) ([]byte, error) {
	tokens, err := scan(raw)
	if err != nil {
		return nil, err
	}
	root := slices.IndexFunc(tokens, func(t token) bool { return t.kind == startToken })
	if !strings.EqualFold(tokens[root].name, "serverconf") {
		return nil, errors.New("root element is <" + tokens[root].name + ">, <serverconf> expected")
	}
	ims := "<ims" + attributeText(values, spell) + "/>"
	shared := childNamed(tokens, root, "shared")
	if shared < 0 {
		eol, indent := lineStyle(raw, tokens[root].from)
		return insertChild(raw, tokens, root, "<shared>"+eol+indent+"    "+ims+eol+indent+"  </shared>"), nil
	}
	found := childNamed(tokens, shared, "ims")
	if found < 0 {
		return insertChild(raw, tokens, shared, ims), nil
	}
	return replaceAttributes(raw, &tokens[found], values, spell), nil
}

// childNamed finds the first child of that name; elements further down,
// comments and CDATA do not count. It returns -1 when there is none.
func childNamed(tokens []token, parent int, name string) int {
	if tokens[parent].empty {
		return -1
	}
	depth := 0
	for i := parent + 1; i < len(tokens) && depth >= 0; i++ {
		switch t := &tokens[i]; t.kind {
		case startToken:
			if depth == 0 && t.name == name {
				return i
			}
			if !t.empty {
				depth++
			}
		case endToken:
			depth--
		}
	}
	return -1
}

// replaceAttributes keeps the order and the quotes of attributes that are
// there, and appends the others.
func replaceAttributes(raw []byte, tag *token, values []nameValue, spell spelling) []byte {
	var out bytes.Buffer
	done := 0
	for i := range tag.attributes {
		a := &tag.attributes[i]
		for _, v := range values {
			if v.name == a.name {
				out.Write(raw[done:a.from])
				out.WriteString(spell(v.value))
				done = a.to
			}
		}
	}
	missing := slices.DeleteFunc(slices.Clone(values), func(v nameValue) bool { return tag.attribute(v.name) != nil })
	end := tag.nameEnd
	if n := len(tag.attributes); n > 0 {
		end = tag.attributes[n-1].to + 1
	}
	out.Write(raw[done:end])
	out.WriteString(attributeText(missing, spell))
	out.Write(raw[end:])
	return out.Bytes()
}

// insertChild puts an element on a line of its own at the end of a parent, or
// opens the parent when it is written as <parent/>.
func insertChild(raw []byte, tokens []token, parent int, child string) []byte {
	p := &tokens[parent]
	eol, indent := lineStyle(raw, p.from)
	line := "  " + child + eol + indent
	if p.empty {
		tag := bytes.TrimRight(raw[p.from:p.to-len("/>")], xmlSpace)
		expanded := string(tag) + ">" + eol + indent + line + "</" + p.name + ">"
		return slices.Concat(raw[:p.from], []byte(expanded), raw[p.to:])
	}
	end := parent
	for depth := 0; ; end++ {
		if t := &tokens[end]; t.kind == startToken && !t.empty {
			depth++
		} else if t.kind == endToken {
			depth--
		}
		if depth == 0 {
			break
		}
	}
	at := tokens[end].from
	// The end tag's own indentation becomes the child's first part.
	if _, own := lineStyle(raw, at); !bytes.HasSuffix(raw[:at], []byte("\n"+own)) {
		line = eol + indent + line
	}
	return slices.Concat(raw[:at], []byte(line), raw[at:])
}

// lineStyle returns the line end used before pos, and the white space that the
// line of pos begins with.
func lineStyle(raw []byte, pos int) (eol, indent string) {
	start := bytes.LastIndexByte(raw[:pos], '\n') + 1
	eol = "\n"
	if bytes.HasSuffix(raw[:start], []byte("\r\n")) {
		eol = "\r\n"
	}
	line := raw[start:pos]
	return eol, string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

func attributeText(values []nameValue, spell spelling) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(" " + v.name + `="` + spell(v.value) + `"`)
	}
	return b.String()
}

var escapeValue = strings.NewReplacer(
	"&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;",
	"\t", "&#9;", "\n", "&#10;", "\r", "&#13;",
).Replace

// reformat writes the whole file anew, as a program does that keeps a tree and
// not the text: two spaces a level, double quotes, <a/> for <a></a>. What it
// says stays the same.
func reformat(raw []byte) ([]byte, error) {
	tokens, err := scan(raw)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	depth, inline := 0, 0 // inline: depth of an element that holds text
	for i := range tokens {
		t := &tokens[i]
		text := raw[t.from:t.to]
		next := i + 1
		if t.kind == endToken {
			depth--
			if i > 0 && tokens[i-1].kind == startToken && !tokens[i-1].empty {
				continue // written as <a/>
			}
		}
		if t.kind == textToken && inline == 0 {
			continue // nothing but white space, see below
		}
		if inline == 0 {
			out.WriteString(strings.Repeat("  ", depth))
		}
		switch t.kind {
		case startToken:
			closed := t.empty || (next < len(tokens) && tokens[next].kind == endToken)
			out.WriteString(startTag(raw, t, closed))
			if !t.empty {
				depth++
				if inline == 0 && holdsText(raw, tokens, i) {
					inline = depth
				}
			}
		default:
			out.Write(text)
		}
		if t.kind == endToken && depth < inline {
			inline = 0
		}
		if inline == 0 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}

func startTag(raw []byte, t *token, closed bool) string {
	var b strings.Builder
	b.WriteString("<" + t.name)
	for _, a := range t.attributes {
		b.WriteString(" " + a.name + `="` + strings.ReplaceAll(string(raw[a.from:a.to]), `"`, "&quot;") + `"`)
	}
	if closed {
		b.WriteString("/")
	}
	b.WriteString(">")
	return b.String()
}

// holdsText tells whether an element has text or CDATA among its children:
// white space in it must then stay.
func holdsText(raw []byte, tokens []token, parent int) bool {
	depth := 0
	for i := parent + 1; depth >= 0; i++ {
		t := &tokens[i]
		text := raw[t.from:t.to]
		switch {
		case t.kind == endToken:
			depth--
		case t.kind == startToken && !t.empty:
			depth++
		case depth == 0 && t.kind == textToken && len(bytes.Trim(text, xmlSpace)) > 0,
			depth == 0 && bytes.HasPrefix(text, []byte("<![CDATA[")):
			return true
		}
	}
	return false
}
