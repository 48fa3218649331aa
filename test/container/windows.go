package container

import (
	"bytes"
	"time"
)

// Windows are times in which the stand-in was at work on a configuration file. It reads and rewrites the whole file, and
// nobody can help what others write in between.
type Windows []window

type window struct{ start, end time.Time }

// Windows returns the times of all runs that set a credential and came to their end.
func (c *Container) Windows() (Windows, error) {
	runs, err := c.Runs()
	if err != nil {
		return nil, err
	}
	var all Windows
	for _, r := range runs {
		if r.Event == "end" && r.Kind == "set" {
			all = append(all, window{r.Time.Add(-time.Duration(r.DurationUS)*time.Microsecond - time.Millisecond), r.Time})
		}
	}
	return all, nil
}

// Overlap reports whether the time between from and to touches any of them.
func (w Windows) Overlap(from, to time.Time) bool {
	for _, one := range w {
		if from.Before(one.end) && to.After(one.start) {
			return true
		}
	}
	return false
}

// Spoil changes the value of a managed attribute, as a hand edit or another tool does. The document is returned as it is
// when the attribute has no value.
func Spoil(document []byte, attribute, value string) []byte {
	was, err := Attribute(document, attribute)
	if err != nil || was == "" || was == value {
		return document
	}
	return bytes.Replace(document, []byte(attribute+`="`+was+`"`), []byte(attribute+`="`+value+`"`), 1)
}
