package faults_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// memoryBound is how much the daemon without race detector may ever have resident, in KiB. Idle it has about 20 MiB.
const memoryBound = 64 << 10

// An answer without end, one that is all brackets, and a very long one: each is given up, and the memory stays bounded.
func TestVaultFloods(t *testing.T) {
	t.Parallel()
	endless := func(head, again string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			chunk := []byte(strings.Repeat(again, 64<<10/len(again)))
			_, err := w.Write([]byte(head))
			for range 4 << 30 / len(chunk) { // or as long as the client takes it
				if err != nil || r.Context().Err() != nil {
					return
				}
				_, err = w.Write(chunk)
			}
		}
	}
	w, secrets := world.Started(t, container.Options{Programs: world.Plain()})
	secret, version := secrets["prod"], 1
	for i, part := range []string{"/metadata/", "/data/", "/login"} {
		for k, flood := range []struct {
			name  string
			serve http.HandlerFunc
		}{
			{"endless nesting", endless(``, `{"data":`)},
			{"endless list", endless(`{"data":{"data":[`, `0,`)},
			{"endless errors", func(rw http.ResponseWriter, r *http.Request) {
				rw.WriteHeader(500)
				endless(`{"errors":["`, `x`)(rw, r)
			}},
			{"endless text", endless(`{"data":{"data":{"client_secret":"`, `p8e-`)},
			{"endless spaces", endless(``, ` `)},
			{"nested", answer(200, `{"data":`+strings.Repeat(`[`, 1<<20-100))},
			{"many keys", answer(200, `{"data":{`+strings.Repeat(`"":{},`, 1<<17))},
		} {
			if !*full && k%3 != i {
				continue
			}
			ok := t.Run(flood.name+" in "+strings.Trim(part, "/"), func(t *testing.T) {
				w.In(t)
				serve := flood.serve
				if part == "/login" {
					w.Stop()
				}
				w.Proxy.Serve(part, serve)
				if part == "/login" {
					w.StartDaemon()
				}
				if part == "/data/" {
					w.NewSecret("prod")
					version++
				}
				w.Signal(syscall.SIGUSR1)
				w.AwaitStatus("not in sync", func(s container.Status) bool {
					in := world.One(s, "prod")
					return (in.State == "degraded" || in.State == "blocked") && in.LastError != ""
				})
				keepsAndGuards(w, secret)
				if peak := memory(t, w.Running.PID(), "VmHWM") >> 10; peak > memoryBound {
					t.Errorf("the daemon had %d KiB resident, more than %d", peak, memoryBound)
				}
				w.Proxy.Forward()
				_, secret = w.NewSecret("prod")
				version++
				w.Signal(syscall.SIGUSR1)
				w.InSync(version)
				w.Holds("prod", secret)
			})
			w.In(t)
			if !ok {
				return
			}
		}
	}
}
