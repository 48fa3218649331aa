package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// token is a piece of an XML file. The pieces follow each other without gaps:
// written one after the other they are the file.
type token struct {
	kind       tokenKind
	from, to   int
	name       string // of a tag
	attributes []attribute
	nameEnd    int // of a tag: where its name ends
	empty      bool
}

type tokenKind int

const (
	textToken  tokenKind = iota
	otherToken           // declaration, processing instruction, comment, CDATA, doctype
	startToken
	endToken
)

// attribute is name="value" in a start tag; from and to enclose the value
// without its quotes.
type attribute struct {
	name     string
	quote    byte
	from, to int
}

const xmlSpace = " \t\r\n"

var byteOrderMark = []byte("\xef\xbb\xbf")

// scan takes a well-formed file apart. It works on bytes, so every encoding
// that contains ASCII will do; UTF-16 is refused. Namespaces are beyond it, and
// what a doctype declares is not looked at.
func scan(raw []byte) ([]token, error) {
	var tokens []token
	var open []string
	roots := 0
	for pos := 0; pos < len(raw); {
		t, err := scanToken(raw, pos)
		if err != nil {
			return nil, err
		}
		switch t.kind {
		case textToken:
			text := raw[t.from:t.to]
			if t.from == 0 {
				text = bytes.TrimPrefix(text, byteOrderMark)
			}
			if len(open) == 0 && len(bytes.Trim(text, xmlSpace)) > 0 {
				return nil, parseError(raw, t.from, "text outside the root element")
			}
			if err := checkReferences(raw, t.from, t.to); err != nil {
				return nil, err
			}
		case startToken:
			if len(open) == 0 {
				roots++
			}
			if !t.empty {
				open = append(open, t.name)
			}
		case endToken:
			if len(open) == 0 || open[len(open)-1] != t.name {
				return nil, parseError(raw, t.from, "unexpected </"+t.name+">")
			}
			open = open[:len(open)-1]
		}
		tokens = append(tokens, t)
		pos = t.to
	}
	if len(open) > 0 {
		return nil, parseError(raw, len(raw), "<"+open[len(open)-1]+"> is not closed")
	}
	if roots != 1 {
		return nil, errors.New("one root element expected")
	}
	return tokens, nil
}

func scanToken(raw []byte, pos int) (token, error) {
	rest := raw[pos:]
	if rest[0] != '<' {
		end := bytes.IndexByte(rest, '<')
		if end < 0 {
			end = len(rest)
		}
		if bytes.IndexByte(rest[:end], 0) >= 0 {
			return token{}, parseError(raw, pos, "zero byte")
		}
		return token{kind: textToken, from: pos, to: pos + end}, nil
	}
	for _, form := range []struct{ begin, end string }{
		{"<?", "?>"}, {"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<!DOCTYPE", ">"},
	} {
		if !bytes.HasPrefix(rest, []byte(form.begin)) {
			continue
		}
		if bracket := bytes.IndexByte(rest, '['); form.begin == "<!DOCTYPE" && bracket >= 0 && bracket < bytes.IndexByte(rest, '>') {
			form.end = "]>" // declarations stand between
		}
		end := bytes.Index(rest[len(form.begin):], []byte(form.end))
		if end < 0 {
			return token{}, parseError(raw, pos, form.begin+" is not closed")
		}
		if form.begin == "<!--" && bytes.Contains(rest[len(form.begin):len(form.begin)+end], []byte("--")) {
			return token{}, parseError(raw, pos, "two hyphens in a comment")
		}
		return token{kind: otherToken, from: pos, to: pos + len(form.begin) + end + len(form.end)}, nil
	}
	return scanTag(raw, pos)
}

func scanTag(raw []byte, pos int) (token, error) {
	t := token{kind: startToken, from: pos}
	at := pos + 1
	if at < len(raw) && raw[at] == '/' {
		t.kind = endToken
		at++
	}
	t.nameEnd = at + nameLength(raw[at:])
	t.name = string(raw[at:t.nameEnd])
	if t.name == "" {
		return t, parseError(raw, pos, "tag without a name")
	}
	at = t.nameEnd
	names := map[string]bool{}
	for {
		space := len(raw[at:]) - len(bytes.TrimLeft(raw[at:], xmlSpace))
		at += space
		rest := raw[at:]
		switch {
		case bytes.HasPrefix(rest, []byte(">")):
			t.to = at + 1
			return t, nil
		case t.kind == startToken && bytes.HasPrefix(rest, []byte("/>")):
			t.empty = true
			t.to = at + 2
			return t, nil
		case t.kind == endToken || space == 0:
			return t, parseError(raw, at, "misplaced character in the tag of "+t.name)
		}
		a, err := scanAttribute(raw, at)
		if err != nil {
			return t, err
		}
		if names[a.name] {
			return t, parseError(raw, at, "attribute "+a.name+" given twice")
		}
		names[a.name] = true
		t.attributes = append(t.attributes, a)
		at = a.to + 1
	}
}

func scanAttribute(raw []byte, pos int) (attribute, error) {
	end := pos + nameLength(raw[pos:])
	a := attribute{name: string(raw[pos:end])}
	rest := bytes.TrimLeft(raw[end:], xmlSpace)
	value, hasValue := bytes.CutPrefix(rest, []byte("="))
	value = bytes.TrimLeft(value, xmlSpace)
	if a.name == "" || !hasValue || len(value) == 0 || (value[0] != '"' && value[0] != '\'') {
		return a, parseError(raw, pos, "attribute expected")
	}
	a.quote = value[0]
	a.from = len(raw) - len(value) + 1
	length := bytes.IndexByte(raw[a.from:], a.quote)
	if length < 0 || bytes.ContainsAny(raw[a.from:a.from+length], "<\x00") {
		return a, parseError(raw, pos, "value of "+a.name+" is not closed")
	}
	a.to = a.from + length
	return a, checkReferences(raw, a.from, a.to)
}

func (t *token) attribute(name string) *attribute {
	for i := range t.attributes {
		if t.attributes[i].name == name {
			return &t.attributes[i]
		}
	}
	return nil
}

// nameLength is lenient: what cannot end a name belongs to it.
func nameLength(text []byte) int {
	if end := bytes.IndexAny(text, xmlSpace+"/>=<\"'&\x00"); end >= 0 {
		return end
	}
	return len(text)
}

// checkReferences refuses an ampersand that begins no entity.
func checkReferences(raw []byte, from, to int) error {
	for at := from; at < to; at++ {
		if raw[at] != '&' {
			continue
		}
		end := bytes.IndexByte(raw[at:to], ';')
		if end < 2 || strings.ContainsAny(string(raw[at+1:at+end]), xmlSpace+"&<\"'") {
			return parseError(raw, at, "bare ampersand")
		}
	}
	return nil
}

func parseError(raw []byte, pos int, what string) error {
	return fmt.Errorf("not well-formed, line %d: %s", 1+bytes.Count(raw[:pos], []byte("\n")), what)
}
