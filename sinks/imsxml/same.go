package imsxml

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
)

// Same reports whether two configuration files say the same: elements, attributes, text, comments and instructions. White space between
// elements, line ends, the kind of quotes, the order of attributes, the encoding and <a/> for <a></a> do not count, and neither does an
// <ims> or <shared> that is empty. What cannot be parsed is the same as nothing.
func Same(a, b []byte) bool {
	first, err := content(a)
	if err != nil {
		return false
	}
	second, err := content(b)
	return err == nil && slices.Equal(first, second)
}

// content lists what a file says, a token each.
func content(data []byte) (tokens []string, err error) {
	d, err := Parse(data)
	if err != nil {
		return nil, err
	}
	decoder := xml.NewDecoder(strings.NewReader(d.text))
	decoder.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // d.text is UTF-8, whatever it declares
	for {
		token, err := decoder.RawToken()
		switch t := token.(type) {
		case xml.StartElement:
			tokens = append(tokens, startOf(t))
		case xml.EndElement:
			if last := len(tokens) - 1; last >= 0 && slices.Contains(mayBeEmpty, tokens[last]) {
				tokens = tokens[:last]
			} else {
				tokens = append(tokens, "end")
			}
		case xml.CharData:
			if text := strings.TrimSpace(string(t)); text != "" {
				tokens = append(tokens, "text "+text)
			}
		case xml.Comment:
			tokens = append(tokens, "comment "+strings.Join(strings.Fields(string(t)), " "))
		case xml.Directive:
			tokens = append(tokens, "directive "+string(t))
		case xml.ProcInst:
			if t.Target != "xml" {
				tokens = append(tokens, "instruction "+t.Target+" "+string(t.Inst))
			}
		}
		if errors.Is(err, io.EOF) {
			return tokens, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// mayBeEmpty are the elements that nlserver creates, and that stay when their attributes are taken out again.
var mayBeEmpty = []string{"start ims", "start shared"}

func startOf(t xml.StartElement) string {
	parts := make([]string, 0, len(t.Attr))
	for _, a := range t.Attr {
		parts = append(parts, a.Name.Space+":"+a.Name.Local+"="+a.Value)
	}
	slices.Sort(parts)
	name := t.Name.Local
	if t.Name.Space != "" {
		name = t.Name.Space + ":" + name
	}
	return strings.Join(append([]string{"start " + name}, parts...), "\x00")
}
