package jsonfile

import (
	"testing"
	"testing/synctest"
	"time"
)

// However long a look takes, as on a network file system, a content is believed only after another look found it unchanged.
func TestLooksThatTakeLong(t *testing.T) {
	const half, whole = `{"client_id":"new","client_secret":"old"}`, `{"client_id":"new","client_secret":"new"}`
	type look struct {
		takes time.Duration
		finds string
	}
	for name, looks := range map[string][]look{
		"the first one":              {{2 * quiet, half}, {0, whole}, {0, whole}},
		"the second one":             {{0, "{"}, {2 * brokenGrace, "{"}, {0, whole}, {0, whole}},
		"all, and a mixture between": {{2 * quiet, ""}, {2 * quiet, half}, {2 * quiet, whole}, {2 * quiet, whole}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // in which only waits take time
				n := 0
				read := func() content {
					l := looks[min(n, len(looks)-1)]
					n++
					time.Sleep(l.takes)
					return content{data: []byte(l.finds)}
				}
				f := New("file", []byte("key"), nil)
				c, err := f.awaitQuiet(t.Context(), read)
				if err != nil || string(c.data) != whole || n != len(looks) {
					t.Errorf("after %d of %d looks: %s, %v", n, len(looks), c.data, err)
				}
			})
		})
	}
}
