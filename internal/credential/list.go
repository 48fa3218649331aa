package credential

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// listed is how many entries a List shows.
const listed = 10

// List joins texts for one line of a log or a status, and says how many it leaves out.
func List(texts []string) string {
	if len(texts) <= listed {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s, … and %d more", strings.Join(texts[:listed], ", "), len(texts)-listed)
}

// Cut shortens a text to at most limit bytes, and shows that it did.
func Cut(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}
