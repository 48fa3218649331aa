package imsxml

import (
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

const endOfElement = "</"

// content lists what a file says.
func content(data []byte) (said []string, err error) {
	end := func() {
		if last := len(said) - 1; said[last] == "<ims" || said[last] == "<shared" { // nlserver makes them where there are none
			said = said[:last]
		} else {
			said = append(said, endOfElement)
		}
	}
	_, err = parse(data, func(s *scanner, piece string) {
		switch {
		case strings.HasPrefix(piece, endOfElement):
			end()
		case strings.HasPrefix(piece, "<!"), strings.HasPrefix(piece, "<?"):
			said = append(said, strings.Join(strings.Fields(piece), " "))
		case strings.HasPrefix(piece, "<"):
			name := scanner{text: piece, pos: 1}
			said = append(said, "<"+name.name()+attributesOf(s))
			if strings.HasSuffix(piece, "/>") {
				end()
			}
		default:
			if text := strings.TrimSpace(piece); text != "" {
				said = append(said, strings.ReplaceAll(text, "\r\n", "\n"))
			}
		}
	})
	return said, err
}

// attributesOf are those of the tag that was read, in one order.
func attributesOf(s *scanner) string {
	var all []string
	for _, a := range s.attributes {
		all = append(all, "\x00"+a.name+"="+a.value)
	}
	slices.Sort(all)
	return strings.Join(all, "")
}
