package faults_test

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

// crowded is a file that a crowd of editors works on, while the daemon rotates its credential and puts drift back.
type crowded struct {
	*world.World
	crowd  *editors.Crowd
	spoilt atomic.Int32 // documents that Meddle was asked for: a quarter of all edits
	end    context.CancelFunc
	ended  chan struct{}
	result editors.Result
	err    error
}

// manyReverts is for tests in which the brake is not what they are about.
const manyReverts = "drift: {max_reverts: 10000}"

func newCrowd(w *world.World, size int, pause time.Duration) *crowded {
	c := &crowded{World: w, ended: make(chan struct{})}
	c.crowd = &editors.Crowd{Path: w.File("prod"), Pause: func() time.Duration { return pause }, Meddle: func(document []byte) []byte {
		c.spoilt.Add(1)
		return spoilt(document)
	}}
	for i := range size {
		c.crowd.Styles = append(c.crowd.Styles, editors.AllStyles[i%len(editors.AllStyles)])
	}
	w.Edits("prod", func(document []byte) []byte { return editors.Prepare(document, size) })
	return c
}

// spoilt changes one of the managed attributes, as a hand edit or another tool does: to what cannot pass for the
// credential, should it be there right after nlserver has run.
func spoilt(document []byte) []byte {
	edits := [][2]string{
		{"authIMSTAClientSecret", ""}, {"authIMSTAClientId", ""}, {"authIMSTAClientId", "mallory"}, {"authIMSTAId", "mallory"},
	}
	edit := edits[rand.N(len(edits))]
	return withValue(document, edit[0], edit[1])
}

// withValue changes the last attribute of a name: those before are in a comment.
func withValue(document []byte, attribute, value string) []byte {
	start := []byte(attribute + `="`)
	at := bytes.LastIndex(document, start) + len(start)
	return slices.Concat(document[:at], []byte(value), document[at+bytes.IndexByte(document[at:], '"'):])
}

func (c *crowded) start() {
	ctx, end := context.WithCancel(c.Ctx)
	c.end = end
	go func() {
		defer close(c.ended)
		c.result, c.err = c.crowd.Run(ctx)
	}()
}

// edited waits until about so many edits were made.
func (c *crowded) edited(edits int) {
	c.T.Helper()
	for int(c.spoilt.Load()) < edits/4 {
		select {
		case <-c.ended:
			c.T.Fatalf("the editors gave up: %v\n%s", c.err, c.Log())
		case <-time.After(time.Millisecond):
		}
	}
}

// judge ends the editing and demands that the daemon lost none of it. What was written in windows, while nlserver was at
// work on the file, nlserver may have lost, as it reads and rewrites the whole of it. Where its write and an editor's made
// one damaged file, what the editors then did to that went with it when the last whole bytes were put back: once for each.
func (c *crowded) judge(windows container.Windows) {
	c.T.Helper()
	c.end()
	<-c.ended
	if c.err != nil {
		c.T.Fatalf("%v\n%s", c.err, c.Log())
	}
	c.Foreign["prod"] = world.ForeignBytes(c.result.Last) // which finish compares with what is on disk
	lost := slices.DeleteFunc(slices.Clone(c.result.Losses), func(l editors.Loss) bool {
		return windows.Overlap(l.Written, l.Noticed)
	})
	damaged := strings.Count(c.Log(), "nlserver left the configuration file damaged")
	if len(lost) > damaged*len(c.crowd.Styles) {
		c.T.Errorf("updates were lost: %+v\n%s", lost, c.Log())
	}
	s, err := c.Asker().Status(c.Ctx)
	c.Must(err)
	reverts := world.One(s, "prod").RevertedTotal
	c.T.Logf("%d edits, %d reverts; updates lost by nlserver's own runs: %d, with what it left damaged %d times: %d",
		c.result.Edits, reverts, len(c.result.Losses)-len(lost), damaged, len(lost))
	if reverts == 0 {
		c.T.Error("nothing was ever put back")
	}
}

// Two to eight editors of every kind work on the file while new versions are applied, drift is put back and nlserver is run
// by hand for another instance: no update of theirs is lost.
func TestEditorsLoseNothing(t *testing.T) {
	t.Parallel()
	sizes, edits := []int{2, 8}, 750
	if *full {
		sizes, edits = []int{2, 4, 8}, 4000
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d editors", size), func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Instances: []string{"prod", "stage"}, Settings: manyReverts})
			w.Reconfigured(func(o *container.Options) { o.Instances = []string{"prod"} })
			// With less of a pause nlserver hardly ever finds the file whole.
			c := newCrowd(w, size, time.Duration(5*size)*time.Millisecond)
			version, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(version)
			c.start()
			for n := 100; n < edits*4/5; n += 100 {
				c.edited(n)
				secret = fmt.Sprintf("p8e-%032d", n)
				credential := container.Credential(secret)
				credential["client_id"] = fmt.Sprintf("client-%d", n) // by which the daemon tells whose attributes it finds
				version = w.WriteSecret("prod", credential)
				w.Pass()
				c.byHand("stage")
			}
			w.Eventually("the last version is applied", func() bool { return world.One(w.Pass(), "prod").AppliedVersion == version })
			// The very last edits are nobody's but the editors'.
			c.edited(edits)
			windows, err := w.Windows()
			w.Must(err)
			c.judge(windows)
			w.OnDisk("prod", secret)
			w.InSync(version)
		})
	}
}

// nlserver itself, run by hand, is a writer like any other: it sets another credential all the time, in its turn among the
// editors. What it sets is drift; what they write stays, without exception, as no nlserver of the daemon's is at work. The
// instance that it is run for is a link to the same file, so that the runs are told from the daemon's.
func TestNlserverByHandLosesNothing(t *testing.T) {
	t.Parallel()
	edits := 300
	if *full {
		edits = 3000
	}
	w := world.New(t, container.Options{Settings: manyReverts})
	w.Conf = append(w.Conf, "config-alias.xml")
	w.Must(os.Symlink("config-prod.xml", w.File("alias")))
	c := newCrowd(w, 4, 5*time.Millisecond)
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	c.start()
	for n := 10; n < edits*4/5; n += 10 {
		c.edited(n)
		c.crowd.Turn(func() { c.byHand("alias") })
	}
	c.edited(edits)
	c.judge(nil)
	w.OnDisk("prod", secret)
	w.InSync(1)
	runs, err := w.Runs()
	w.Must(err)
	runs = slices.DeleteFunc(runs, func(r container.Run) bool { return r.Event != "start" || r.Instance != "prod" })
	if len(runs) != 1 {
		t.Errorf("the daemon ran nlserver %d times, so that nobody can tell who lost what\n%s", len(runs), w.Log())
	}
}

// byHand has nlserver set a credential for an instance, and reload, as people do.
func (c *crowded) byHand(instance string) {
	c.T.Helper()
	secret := "p8e-by-hand-" + crand.Text()
	c.Secrets = append(c.Secrets, secret)
	for _, args := range [][]string{{"-instance:" + instance, "-setimsoauth:O@AdobeOrg/client/account/" + secret}, {"-reload"}} {
		c.Run("sh", append([]string{"-c", `. "$0/env.sh" && exec "$0/bin/nlserver" config "$@"`, c.Home}, args...)...)
	}
}
