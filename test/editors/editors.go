// Package editors edits a file the way other programs and people do, several at once, and notices when one of their
// updates is lost.
//
// Each editor counts in an element of its own. They take turns by a lock of their own, of which the daemon knows nothing,
// so what is lost was not lost among them. An editor writes what it has read with its own count raised; when it reads
// again and its count is not the one it wrote, an update was lost.
package editors

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// Style is a way of writing a file.
type Style string

// The ways that are seen in the wild.
const (
	InPlace  Style = "in place"  // open, truncate, write, close
	Pieces   Style = "in pieces" // the same, with pauses between several writes
	Rename   Style = "by rename" // write another file, rename it over
	Recreate Style = "anew"      // remove, create, write
)

// AllStyles lists them.
var AllStyles = []Style{InPlace, Pieces, Rename, Recreate}

// Prepare returns the document with an element per editor, just before the end of its root element.
func Prepare(document []byte, editors int) []byte {
	end := bytes.LastIndex(document, []byte("</"))
	var elements bytes.Buffer
	for i := range editors {
		fmt.Fprintf(&elements, "  <editor id=\"%d\" count=\"0\"/>\n", i)
	}
	return append(append(append([]byte{}, document[:end]...), elements.Bytes()...), document[end:]...)
}

// Loss is an update that was not there any more when its editor looked again.
type Loss struct {
	Editor      int
	Style       Style
	Wrote, Read int
	// Written and Noticed bound the time of the loss.
	Written, Noticed time.Time
}

// Result is what a run of editors ended with.
type Result struct {
	Edits  int
	Losses []Loss
	Last   []byte // the document as the last of them left it
}

// Crowd is a number of editors of one file.
type Crowd struct {
	Path   string
	Styles []Style              // one editor each
	Pause  func() time.Duration // the mean time between two edits of one editor; nil: none
	// Meddle, where not nil, is called with some of the documents before they are written: it may change them further,
	// as a hand edit of the credential does.
	Meddle func(document []byte) []byte

	turn   sync.Mutex
	result Result
}

// Run edits until ctx ends, and once more to see that the last updates are still there.
func (c *Crowd) Run(ctx context.Context) (Result, error) {
	var all sync.WaitGroup
	errs := make(chan error, len(c.Styles))
	for i, style := range c.Styles {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := c.edit(ctx, i, style); err != nil {
				errs <- fmt.Errorf("editor %d (%s): %w", i, style, err)
			}
		}()
	}
	all.Wait()
	close(errs)
	return c.result, <-errs
}

// Turn gives another writer of the file its turn among the editors.
func (c *Crowd) Turn(write func()) {
	c.turn.Lock()
	defer c.turn.Unlock()
	write()
}

func (c *Crowd) edit(ctx context.Context, id int, style Style) error {
	count := regexp.MustCompile(fmt.Sprintf(`(<editor id="%d" count=")(\d+)(")`, id))
	last, written := 0, time.Now()
	for done := false; !done; {
		done = ctx.Err() != nil
		c.turn.Lock()
		document, err := read(c.Path)
		if err != nil {
			c.turn.Unlock()
			return err
		}
		found := count.FindSubmatch(document)
		if found == nil {
			c.turn.Unlock()
			return fmt.Errorf("its element is gone from %d bytes", len(document))
		}
		if n, _ := strconv.Atoi(string(found[2])); n != last {
			c.result.Losses = append(c.result.Losses, Loss{id, style, last, n, written, time.Now()})
			last = n
		}
		if !done {
			last++
			document = count.ReplaceAll(document, fmt.Appendf(nil, "${1}%d${3}", last))
			if c.Meddle != nil && rand.N(4) == 0 {
				document = c.Meddle(document)
			}
			written = time.Now() // before, as whoever reads the file now may overwrite it as soon as it is there
			err = Write(c.Path, style, document)
			c.result.Edits++
			c.result.Last = document
		}
		c.turn.Unlock()
		if err != nil {
			return err
		}
		if done || c.Pause == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(2*c.Pause() + 1)):
		}
	}
	return nil
}

// read waits for a whole file: another program may be between truncating and writing, and two that wrote at once may have left a piece of
// one behind the end of the other, which is for somebody else to repair.
func read(path string) ([]byte, error) {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		document, err := os.ReadFile(path)
		if err == nil && isWhole(document) {
			return document, nil
		}
		if time.Since(began) > time.Minute {
			return document, fmt.Errorf("no whole document for a minute: %d bytes, %w", len(document), err)
		}
	}
}

// isWhole reports whether the document ends with the only end tag of its root element.
func isWhole(document []byte) bool {
	document = bytes.TrimSpace(document)
	start := bytes.LastIndex(document, []byte("</"))
	return start >= 0 && bytes.HasSuffix(document, []byte(">")) && bytes.Count(document, document[start:]) == 1
}

// Write replaces the content of the file at path.
func Write(path string, style Style, document []byte) error {
	switch style {
	case Rename:
		other := filepath.Join(filepath.Dir(path), fmt.Sprintf(".edited-%d", rand.Uint64()))
		if err := os.WriteFile(other, document, 0o640); err != nil {
			return err
		}
		return os.Rename(other, path)
	case Recreate:
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.WriteFile(path, document, 0o640)
	case Pieces:
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for len(document) > 0 {
			n := min(len(document), 3000)
			if _, err := f.Write(document[:n]); err != nil {
				return err
			}
			document = document[n:]
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(document)
	return err
}
