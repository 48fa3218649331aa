package imsxml

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"campaign-credsync/internal/credential"
)

// maxDepth is what libxml2 allows too. A real file is about six elements deep.
const maxDepth = 256

// maxEntity bounds the text of an entity in bytes, and maxExpanded that of all uses of entities in the file.
const (
	maxEntity   = 256
	maxExpanded = 1 << 20
)

func isSpace(char byte) bool { return char == ' ' || char == '\t' || char == '\r' || char == '\n' }

// scanner walks over a document once. Each of its methods that reads something begins at pos, and leaves pos behind that, or, when it
// reports false, where it is not well-formed.
type scanner struct {
	text string
	pos  int
	doc  *Document
	// open holds the names of the elements that are not closed yet, outermost first.
	open []string
	// attributes are those of the tag read last.
	attributes []attribute
	// entities are those that the file declares, and what they stand for.
	entities map[string]string
	expanded int // bytes of them in what was read
}

// document reads everything behind the XML declaration.
func (s *scanner) document() error {
	rooted := false
	for s.pos < len(s.text) {
		rest := s.text[s.pos:]
		inside := len(s.open) > 0
		ok, what := false, ""
		switch {
		case strings.HasPrefix(rest, "<!--"):
			ok, what = s.comment(), "a comment is not closed, or holds --"
		case strings.HasPrefix(rest, "<?"):
			ok, what = s.instruction(), "a processing instruction or the XML declaration is malformed"
		case strings.HasPrefix(rest, "<![CDATA[") && inside:
			ok, what = s.through("]]>"), "a CDATA section is not closed"
		case strings.HasPrefix(rest, "</") && inside:
			ok, what = s.endTag(), "an end tag is malformed, or does not match the start tag"
		case strings.HasPrefix(rest, "<!DOCTYPE") && !rooted && s.entities == nil:
			if ok, what = s.doctype(), "the DOCTYPE is not closed"; !ok && !openDoctype.MatchString(rest) {
				return fault(ErrUnsupported, s.text[:s.pos], "the file has a DOCTYPE that has more than entities of plain text (remove it)")
			}
		case rest[0] == '<' && (inside || !rooted):
			rooted = true
			ok, what = s.startTag(), "a start tag is malformed, or has an attribute twice"
		case inside:
			ok, what = s.characters(), "text holds an & that starts no reference, or ]]> (write &amp; or ]]&gt;)"
		default:
			ok, what = s.space(), "this must not stand outside of the root element"
		}
		if !ok {
			return fault(credential.ErrDamaged, s.text[:s.pos], what)
		}
	}
	if !rooted || len(s.open) > 0 {
		return fault(credential.ErrDamaged, s.text, "the file ends before its root element does")
	}
	return nil
}

// A DOCTYPE that declares nothing but entities of plain text, one such declaration, and a DOCTYPE that does not end.
var (
	doctype     = regexp.MustCompile(`^<!DOCTYPE\s+[A-Za-z_][\w.-]*\s*(?:\[(?:\s|` + entity.String() + `)*\]\s*)?>`)
	openDoctype = regexp.MustCompile(`^<!DOCTYPE[^\[>]*(?:\[[^\]]*(?:\]\s*)?)?$`)
	entity      = regexp.MustCompile(`<!ENTITY\s+([A-Za-z_][\w.-]*)\s+(?:"([^"%&<\]\t\r\n]*)"|'([^'%&<\]\t\r\n]*)')\s*>`)
)

func (s *scanner) doctype() bool {
	found := doctype.FindString(s.text[s.pos:])
	s.entities = map[string]string{}
	for _, e := range slices.Backward(entity.FindAllStringSubmatch(found, -1)) { // of two of one name the first counts
		s.entities[e[1]] = e[2] + e[3]
		if len(s.entities[e[1]]) > maxEntity || predefined[e[1]] != "" {
			return false
		}
	}
	return found != "" && s.take(found)
}

func (s *scanner) comment() bool {
	return s.take("<!--") && s.through("--") && s.take(">")
}

func (s *scanner) instruction() bool {
	s.take("<?")
	target := s.name()
	if target == "" || strings.EqualFold(target, "xml") {
		return false
	}
	return s.take("?>") || s.space() && s.through("?>")
}

func (s *scanner) endTag() bool {
	last := len(s.open) - 1
	if !s.take("</" + s.open[last]) {
		return false
	}
	s.open = s.open[:last]
	s.space()
	return s.take(">")
}

// startTag reads a start tag or an empty-element tag.
func (s *scanner) startTag() bool {
	s.take("<")
	name := s.name()
	if name == "" || len(s.open) == maxDepth {
		return false
	}
	s.open = append(s.open, name)
	s.attributes = s.attributes[:0]
	addAt := s.pos
	for {
		start := s.pos
		spaced := s.space()
		empty := s.take("/>")
		if empty || s.take(">") {
			s.note(addAt, empty)
			if empty {
				s.open = s.open[:len(s.open)-1]
			}
			return s.distinct()
		}
		if !spaced || !s.attribute(start) {
			return false
		}
		addAt = s.pos
	}
}

// attribute reads an attribute; the white space in front of it starts at start.
func (s *scanner) attribute(start int) bool {
	name := s.name()
	if name == "" {
		return false
	}
	s.space()
	if !s.take("=") {
		return false
	}
	s.space()
	quote := s.pos
	value, ok := s.value()
	s.attributes = append(s.attributes, attribute{name: name, value: value, start: start, quote: quote, end: s.pos})
	return ok
}

// value reads a value with its quotes.
func (s *scanner) value() (value string, ok bool) {
	quote := s.pos
	if !s.take(`"`) && !s.take(`'`) {
		return "", false
	}
	length := strings.IndexByte(s.text[s.pos:], s.text[quote])
	if length < 0 {
		return "", false
	}
	end := s.pos + length
	if less := strings.IndexByte(s.text[s.pos:end], '<'); less >= 0 {
		s.pos += less
		return "", false
	}
	value, ok = s.meaning(end)
	return value, ok && s.take(s.text[quote:quote+1])
}

func (s *scanner) distinct() bool {
	if len(s.attributes) < 2 {
		return true
	}
	names := make(map[string]bool, len(s.attributes))
	for _, a := range s.attributes {
		names[a.name] = true
	}
	return len(names) == len(s.attributes)
}

// note remembers the tag that ends at pos if it is one of those looked for.
func (s *scanner) note(addAt int, empty bool) {
	d, path := s.doc, s.open
	if len(path) < 2 || path[0] != "serverconf" && path[0] != "serverConf" || path[1] != "shared" {
		return
	}
	switch {
	case len(path) == 2 && d.shared.end == 0:
		d.shared.end, d.shared.empty = s.pos, empty
	case len(path) == 3 && path[2] == "ims" && d.addAt == 0:
		d.attributes, d.addAt = slices.Clone(s.attributes), addAt
	case len(path) == 3 && path[2] == "ims":
		d.several = true
	}
}

// characters reads text up to the next markup.
func (s *scanner) characters() bool {
	s.space()
	length := strings.IndexByte(s.text[s.pos:], '<')
	if length < 0 {
		length = len(s.text) - s.pos
	}
	end := s.pos + length
	if close := strings.Index(s.text[s.pos:end], "]]>"); close >= 0 {
		s.pos += close
		return false
	}
	for {
		amp := strings.IndexByte(s.text[s.pos:end], '&')
		if amp < 0 {
			s.pos = end
			return true
		}
		s.pos += amp
		name, _, closed := strings.Cut(s.text[s.pos+1:end], ";")
		if _, known := s.reference(name); !closed || !known {
			return false
		}
		s.pos += len("&;") + len(name)
	}
}

// meaning reads up to end, and returns what stands there with references replaced, and tabs and line ends as spaces.
func (s *scanner) meaning(end int) (text string, ok bool) {
	if raw := s.text[s.pos:end]; !strings.ContainsAny(raw, "&\t\r\n") {
		s.pos = end
		return raw, true
	}
	var b strings.Builder
	for s.pos < end {
		rest := s.text[s.pos:end]
		switch {
		case rest[0] == '&':
			name, _, closed := strings.Cut(rest[1:], ";")
			char, known := s.reference(name)
			if !closed || !known {
				return "", false
			}
			b.WriteString(char)
			s.pos += len(name) + 1
		case strings.HasPrefix(rest, "\r\n"):
			// One space, written for the \n.
		case isSpace(rest[0]):
			b.WriteByte(' ')
		default:
			b.WriteByte(rest[0])
		}
		s.pos++
	}
	return b.String(), true
}

var predefined = map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}

// reference returns what &name; stands for.
func (s *scanner) reference(name string) (text string, known bool) {
	if text, known = predefined[name]; known {
		return text, true
	}
	if text, known = s.entities[name]; known {
		s.expanded += len(text)
		return text, s.expanded <= maxExpanded
	}
	digits, numeric := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	char, err := strconv.ParseUint(digits, base, 21)
	return string(rune(char)), numeric && err == nil && isXMLChar(rune(char))
}

// name reads a name; "" says that there is none. More than one colon is refused though XML 1.0 by itself allows it: no parser that
// knows namespaces takes such a name, and libxml2 stumbles over some.
func (s *scanner) name() string {
	name := s.text[s.pos:]
	for i, char := range name {
		if isNoNameChar(char) {
			name = name[:i]
			break
		}
	}
	if name == "" || strings.IndexByte("-.0123456789", name[0]) >= 0 || strings.Count(name, ":") > 1 {
		return ""
	}
	s.pos += len(name)
	return name
}

// isNoNameChar is true also for some characters outside ASCII that XML allows in names.
func isNoNameChar(char rune) bool {
	switch {
	case 'a' <= char && char <= 'z', 'A' <= char && char <= 'Z', '0' <= char && char <= '9':
		return false
	case char < utf8.RuneSelf:
		return strings.IndexByte("_:-.", byte(char)) < 0
	}
	return char < 0xc0 || !unicode.IsLetter(char)
}

// take reads a certain text.
func (s *scanner) take(text string) bool {
	taken := strings.HasPrefix(s.text[s.pos:], text)
	if taken {
		s.pos += len(text)
	}
	return taken
}

// through reads up to the next end, and that.
func (s *scanner) through(end string) bool {
	length := strings.Index(s.text[s.pos:], end)
	if length >= 0 {
		s.pos += length + len(end)
	}
	return length >= 0
}

// space reads white space, and reports whether there was any.
func (s *scanner) space() bool {
	before := s.pos
	for s.pos < len(s.text) && isSpace(s.text[s.pos]) {
		s.pos++
	}
	return s.pos > before
}
