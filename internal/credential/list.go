package credential

import (
	"fmt"
	"strings"
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
