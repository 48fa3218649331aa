//go:build systemd

package systemd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testRotation: a new version reaches the file, all by itself.
func testRotation(t *testing.T, h *host) {
	h.awaitApplied(t, 1)
	mark := h.journalEnd(t)
	before := h.rights(t, instanceFile)
	version, secret := h.rotate(t)
	began := time.Now()
	await(t, "the new secret in the file", patience, func() bool { return h.holds(t, secret) })
	t.Logf("in the file after %s, polled every second", time.Since(began).Round(10*time.Millisecond))
	h.awaitApplied(t, version)
	h.awaitJournal(t, mark, fmt.Sprintf("activated instance=%s step=reload version=%d", instance, version))
	if after := h.rights(t, instanceFile); after != before {
		t.Errorf("owner and mode %s, before %s", after, before)
	}
	h.noWarnings(t, mark)
}

// testHandEdits edits the file inside, by several hands. Each edit also adds a comment, which must stay.
func testHandEdits(t *testing.T, h *host) {
	for _, hand := range []struct{ name, script string }{
		{"root, by rename", `sed -i "$EDIT" "$FILE"`},
		{"root, in place", `sed "$EDIT" "$FILE" >/root/edited && cat /root/edited >"$FILE"`},
		{"neolane, by rename", `exec runuser -u neolane -- sed -i "$EDIT" "$FILE"`},
		{"neolane, in place", `exec runuser -u neolane -- sh -c 'text=$(sed "$EDIT" "$FILE") && printf "%s\n" "$text" >"$FILE"'`},
	} {
		t.Run(hand.name, func(t *testing.T) {
			h.awaitApplied(t, 1)
			h.run(t, "systemd-cat", "-t", "elsewhere", "echo", "the newest line of the journal is not the unit's")
			mark := h.journalEnd(t)
			before, ciphertext, rights := h.document(t), h.ciphertext(t), h.rights(t, instanceFile)
			counted := h.reverts(t)
			comment := "<!-- by " + hand.name + " -->"
			edit := `s|="` + ciphertext + `"|="@broken"|; s|</serverconf>|` + comment + `</serverconf>|`
			want := bytes.Replace(before, []byte("</serverconf>"), []byte(comment+"</serverconf>"), 1)

			h.run(t, "env", "FILE="+instanceFile, "EDIT="+edit, "sh", "-c", hand.script)
			began := time.Now()
			await(t, "the secret to be back", patience, func() bool { return h.ciphertext(t) == ciphertext })
			t.Logf("back at most %s after the editor", time.Since(began).Round(time.Millisecond))
			await(t, "the revert to be counted", patience, func() bool { return h.reverts(t) > counted })
			h.awaitJournal(t, mark, "drift reverted")
			if got := h.document(t); !bytes.Equal(got, want) {
				t.Errorf("the file is now\n%s\nwant\n%s", got, want)
			}
			if got := h.rights(t, instanceFile); got != rights {
				t.Errorf("owner and mode %s, before %s", got, rights)
			}
			h.noWarnings(t, mark) // of leases, of the exchange, of file events
		})
	}
}

// reverts is how often the daemon says it has put drift back.
func (h *host) reverts(t *testing.T) int {
	t.Helper()
	var status struct {
		Instances []struct {
			Reverts int `json:"drift_reverted_total"`
		} `json:"instances"`
	}
	text := h.run(t, "campaign-credsync", "status", "--json")
	if err := json.Unmarshal([]byte(text), &status); err != nil || len(status.Instances) != 1 {
		t.Fatalf("status: %v: %s", err, text)
	}
	return status.Instances[0].Reverts
}

// testSecretsShowNowhere comes last: the secrets of all that happened before are looked for, in what is said and in
// what is left on disk.
func testSecretsShowNowhere(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	h.run(t, "journalctl", "--sync")
	places := map[string]string{
		"the journal of everything": h.run(t, "journalctl", "--no-pager", "-o", "export"),
		"the daemon's environment":  h.run(t, "cat", "/proc/"+pid+"/environ"),
		"the daemon's arguments":    h.run(t, "cat", "/proc/"+pid+"/cmdline"),
		"systemctl status":          h.try(t, "systemctl", "status", "--no-pager", "-l", "-n", "1000", unit).stdout,
		"systemctl show":            h.run(t, "systemctl", "show", unit),
		"status":                    h.run(t, "campaign-credsync", "status", "--json"),
		"what the console shows":    h.console.String(),
	}
	// Each is what it is taken for.
	for place, part := range map[string]string{
		"the journal of everything": "credential applied instance=",
		"the daemon's environment":  "CREDENTIALS_DIRECTORY=",
		"the daemon's arguments":    "campaign-credsync",
		"systemctl status":          "in sync",
		"systemctl show":            "ExecReload",
		"status":                    "in_sync",
	} {
		if !strings.Contains(places[place], part) {
			t.Errorf("%s has no %q", place, part)
		}
	}
	for _, dir := range []string{"/etc", "/root", "/run", "/tmp", "/usr/local/neolane", "/var"} {
		h.readAll(t, dir, places)
	}
	if !strings.Contains(places[instanceFile], "authIMSTAClientSecret") {
		t.Errorf("%d places, and the instance's file is not among them", len(places))
	}
	var state int
	look := lookFor(h.secrets...)
	for place, text := range places {
		if strings.HasPrefix(place, stateDir+"/") {
			state++
		}
		for _, i := range look.in(text) {
			t.Errorf("secret %d of %d is in %s", i+1, len(h.secrets), place)
		}
	}
	if state == 0 {
		t.Errorf("%s is empty", stateDir)
	}
	var strays []string
	var err error
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		// What a revert displaced is looked after for 0.3 s.
		if strays, err = filepath.Glob(h.outsidePath(campaignHome + "/conf/.*")); err != nil || len(strays) == 0 {
			break
		}
	}
	if err != nil || len(strays) > 0 {
		t.Errorf("left in conf: %v %v", strays, err)
	}
	t.Logf("%d secrets looked for in %d places, %d of them in the state directory", len(h.secrets), len(places), state)
}

// readAll adds the regular files below a directory of the container, but for those where the secret-id belongs.
func (h *host) readAll(t *testing.T, dir string, places map[string]string) {
	t.Helper()
	root := h.path("")
	err := filepath.WalkDir(root+dir, func(path string, entry os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // it was temporary
		}
		if err != nil {
			return err
		}
		inside := strings.TrimPrefix(path, root)
		if inside == secretIDFile || strings.HasPrefix(inside, "/run/credentials/") || !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err == nil {
			places[inside] = string(content)
		} else if !os.IsNotExist(err) {
			return err
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
