package soak_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

// crowd are editors of every style, each of which counts in an element of its own. They take turns, so that none of them
// overwrites another; a fault that takes the file away takes its turn as well. Unlike editors.Crowd it lives through
// times when there is no whole file, and every reader looks at every count, which bounds the time of a loss closely.
type crowd struct {
	path    string
	foreign []byte // the file's bytes that are not ours, without the counts

	turn   sync.Mutex
	counts []int
	right  time.Time // until when all counts were right for sure
	last   []byte    // the last whole document that was right
	edits  int
	losses []loss
	wrong  error // an editor that could not edit
}

// window is a time.
type window struct{ from, to time.Time }

func (w window) overlaps(other window) bool {
	return w.from.Before(other.to) && other.from.Before(w.to)
}

// loss is an update that was not there any more. It went between the two times.
type loss struct {
	window
	what string
}

const pause = 200 * time.Millisecond // mean, between two edits of an editor

var count = regexp.MustCompile(`<editor id="(\d+)" count="(\d+)"/>`)

func newCrowd(w *world.World) *crowd {
	c := &crowd{path: w.File(instance), counts: make([]int, len(editors.AllStyles))}
	document := editors.Prepare(w.Read(instance), len(c.counts))
	w.Must(os.WriteFile(c.path, document, 0o640))
	c.foreign = withoutCounts(document)
	return c
}

func withoutCounts(document []byte) []byte {
	return count.ReplaceAll(world.ForeignBytes(document), []byte("<editor/>"))
}

// start has the editors edit until ctx ends.
func (c *crowd) start(ctx context.Context, all *sync.WaitGroup) {
	c.right = time.Now()
	for i, style := range editors.AllStyles {
		all.Go(func() {
			for ctx.Err() == nil {
				c.turn.Lock()
				if document, ok := c.look(ctx); ok {
					c.write(i, style, document, rand.N(12) == 0)
				}
				c.turn.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(rand.N(2 * pause)):
				}
			}
		})
	}
}

// look returns the file when it is whole, and notes what is missing in it. Whoever calls it has the turn.
func (c *crowd) look(ctx context.Context) (document []byte, ok bool) {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		from := time.Now() // right if all is right: nobody but nlserver and the daemon writes meanwhile
		document, err := os.ReadFile(c.path)
		if err == nil && world.WellFormed(document) == nil && c.judge(document, from) {
			return document, true
		}
		if ctx.Err() != nil || time.Since(began) > time.Second {
			return nil, false // another time
		}
	}
}

// judge notes what is missing in a whole document. One whose foreign bytes are wrong is put right, as a person would: nlserver
// and an editor that write in place at the same time leave a mixture.
func (c *crowd) judge(document []byte, now time.Time) bool {
	if got := withoutCounts(document); !bytes.Equal(got, c.foreign) {
		c.losses = append(c.losses, loss{window{c.right, time.Now()}, "foreign bytes changed " + world.FirstDifference(c.foreign, got)})
		c.put(editors.Rename, changed(c.last, "authIMSTAClientSecret", "")) // else it may be that of a version long ago; see spoiled
		return false
	}
	for _, found := range count.FindAllSubmatch(document, -1) {
		id, _ := strconv.Atoi(string(found[1]))
		if n, _ := strconv.Atoi(string(found[2])); n != c.counts[id] {
			c.losses = append(c.losses, loss{window{c.right, time.Now()}, fmt.Sprintf("editor %d wrote %d and reads %d", id, c.counts[id], n)})
			c.counts[id] = n
		}
	}
	c.right, c.last = now, document
	return true
}

// write raises a count and, where it is to spoil, changes a managed attribute as well.
func (c *crowd) write(id int, style editors.Style, document []byte, spoil bool) {
	n := c.counts[id] + 1
	document = bytes.Replace(document, fmt.Appendf(nil, `<editor id="%d" count="%d"/>`, id, c.counts[id]),
		fmt.Appendf(nil, `<editor id="%d" count="%d"/>`, id, n), 1)
	if spoil {
		document = spoiled(document)
	}
	c.counts[id] = n
	c.put(style, document)
	c.edits++
}

// spoiled changes the value of a managed attribute, the last that looks like it: the first ones are in a comment. The client
// secret is only emptied: another text that is written in the milliseconds between nlserver and the look at what it did
// cannot be told from what nlserver wrote, as nobody can decrypt either.
func spoiled(document []byte) []byte {
	name := []string{"authIMSTAClientSecret", "authIMSTAClientId", "authIMSTAId"}[rand.N(3)]
	value := ""
	if name != "authIMSTAClientSecret" && rand.N(2) == 0 {
		value = "mallory"
	}
	return changed(document, name, value)
}

// changed is the document with another value of a managed attribute, where it is there and not empty.
func changed(document []byte, name, value string) []byte {
	was, err := container.Attribute(document, name)
	at := bytes.LastIndex(document, []byte(name+`="`+was+`"`))
	if err != nil || was == "" || at < 0 {
		return document
	}
	at += len(name) + 2
	return slices.Concat(document[:at], []byte(value), document[at+len(was):])
}

func (c *crowd) put(style editors.Style, document []byte) {
	c.right, c.last = time.Now(), document
	if err := editors.Write(c.path, style, document); err != nil && c.wrong == nil {
		c.wrong = fmt.Errorf("an editor that writes %s: %w", style, err)
	}
}

// meddle is a hand edit of a managed attribute in any style.
func (c *crowd) meddle(ctx context.Context, random *rand.Rand) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if document, ok := c.look(ctx); ok {
		id := random.IntN(len(c.counts))
		c.write(id, editors.AllStyles[id], document, true)
	}
}

// take returns the losses since it was last called, split by whether they touch one of the windows.
func (c *crowd) take(excused []window) (lost, notOurs []loss) {
	all := c.losses
	c.losses = nil
	for _, l := range all {
		if slices.ContainsFunc(excused, func(w window) bool { return w.overlaps(l.window) }) {
			notOurs = append(notOurs, l)
		} else {
			lost = append(lost, l)
		}
	}
	return lost, notOurs
}
