package compatibility_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// settled: each is as it was in testdata.
func settled(s container.Status) bool {
	return world.One(s, "prod").State == "held" && world.One(s, "prod").WantedVersion != 0 && world.One(s, "vault").State == "in_sync" &&
		world.One(s, "file").State == "in_sync" && world.One(s, "away").State == "paused"
}

// A daemon that starts where that of an earlier release ended does nothing anew: nlserver is not run, no file changes, and what is known
// of the past stays known. Then it does what it is for: drift is put back, and a new version applied.
func TestStartsAfterRelease(t *testing.T) {
	for _, release := range releases(t) {
		t.Run(filepath.Base(release), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, *daemon)
			p.restore(release)
			p.Exits(0, "", "validate")
			before, runs := p.files(), p.runs()
			p.StartDaemon()
			p.AwaitStatus("settled", settled)
			p.Stop()
			p.StartDaemon() // also by what this one wrote
			now := p.AwaitStatus("settled", settled)
			if got := p.runs(); got != runs {
				t.Errorf("nlserver was run %d times\n%s", got-runs, p.Log())
			}
			for name, text := range p.files() {
				if text != before[name] {
					t.Errorf("the file of %s changed\n%s", name, p.Log())
				}
			}
			var was container.Status
			p.Must(json.Unmarshal(read(t, release, "status.json"), &was))
			for _, name := range instances {
				is, was := world.One(now, name), world.One(was, name)
				if !is.AppliedAt.Equal(was.AppliedAt) || !is.ActivatedAt.Equal(was.ActivatedAt) || is.RevertedTotal != was.RevertedTotal || is.AppliedVersion != was.AppliedVersion {
					t.Errorf("%s: %+v, and before %+v", name, is, was)
				}
			}
			old := p.EventsIn(string(p.own(read(t, release, "history.jsonl"))))
			history := p.History()
			for i, e := range old {
				if len(history) <= i || history[i].String() != e.String() || !history[i].Time.Equal(e.Time) {
					t.Fatalf("event %d of the history was %v; now there is %v", i, e, history)
				}
			}
			for _, e := range history[len(old):] {
				if !slices.Contains([]string{"started", "stopped"}, e.Kind) {
					t.Errorf("after the start there is %v", e)
				}
			}

			p.Blank("vault")
			p.OnDisk("vault", vaultSecret)
			_, secret := p.NewSecret("vault")
			p.OnDisk("vault", secret)
		})
	}
}

func (p *place) files() map[string]string {
	files := map[string]string{}
	for _, name := range p.Instances {
		files[name] = string(p.Read(name))
	}
	return files
}

func (p *place) runs() int {
	runs, err := p.Runs()
	p.Must(err)
	return len(runs)
}

// What the commands of a release ask, the daemon answers as that release expects it.
func TestAnswersCommandsOfReleases(t *testing.T) {
	for _, release := range releases(t) {
		t.Run(filepath.Base(release), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "")
			p.restore(release)
			p.StartDaemon()
			p.AwaitStatus("settled", settled)
			requests, err := filepath.Glob(filepath.Join(release, "requests", "*"))
			p.Must(err)
			orders := 0
			for _, path := range requests {
				asked := read(t, path)
				conn, err := net.Dial("unix", p.Path("control.sock"))
				p.Must(err)
				_, err = conn.Write(asked)
				p.Must(err)
				request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(asked)))
				p.Must(err)
				response, err := http.ReadResponse(bufio.NewReader(conn), request)
				p.Must(err)
				body, err := io.ReadAll(response.Body)
				p.Must(err)
				conn.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("%s %s: %s: %s", request.Method, request.URL, response.Status, body)
					continue
				}
				switch request.URL.Path {
				case "/history":
					p.EventsIn(string(body))
				case "/metrics":
					now := metricFamilies(t, body)
					for name, is := range metricFamilies(t, read(t, release, "metrics.txt")) {
						if now[name] != is {
							t.Errorf("the metric %s is %s, and was %s", name, now[name], is)
						}
					}
				default:
					hasFields(t, request.URL.Path, tree(t, read(t, release, "status.json")), tree(t, body))
				}
				if request.Method == http.MethodPost {
					orders++
				}
			}
			if orders < 4 {
				t.Errorf("%d orders", orders)
			}
			var done []string
			for _, e := range p.History() {
				if e.Instance == "file" {
					done = append(done, e.Kind)
				}
			}
			if want := []string{"sync_asked", "paused", "resumed", "adopted"}; !slices.Equal(done[len(done)-len(want):], want) {
				t.Errorf("%v was done, want at last %v", done, want)
			}
		})
	}
}

// hasFields demands each field that there was, and values of the same kinds.
func hasFields(t *testing.T, at string, before, after any) {
	t.Helper()
	walk(at, before, after, func(at string, before, after any) {
		switch {
		case after == absent:
			t.Errorf("%s is gone", at)
		case before != nil && after != nil && reflect.TypeOf(before) != reflect.TypeOf(after):
			t.Errorf("%s: %v, and before %v", at, after, before)
		}
	})
}

// The status that a daemon of a release answers is shown by this command.
func TestShowsStatusOfReleases(t *testing.T) {
	for _, release := range releases(t) {
		t.Run(filepath.Base(release), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "")
			p.restore(release)
			answer := p.own(read(t, release, "status.json"))
			listener, err := net.Listen("unix", p.Path("control.sock"))
			p.Must(err)
			old := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/status" {
					http.NotFound(w, r)
					return
				}
				w.Write(answer)
			})}
			ended := make(chan error)
			go func() { ended <- old.Serve(listener) }()
			shown := p.Exits(3, "", "status")
			for _, words := range append([]string{"held", "in_sync", "paused", "work on the disk"}, instances...) {
				if !strings.Contains(shown, words) {
					t.Errorf("the status does not say %q: %s", words, shown)
				}
			}
			printed, _, _ := p.RunCommand("status", "--json")
			holds(t, "status", tree(t, answer), tree(t, []byte(printed)))
			old.Close()
			<-ended
			os.Remove(p.Path("control.sock"))
		})
	}
}
