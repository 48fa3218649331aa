package main_test

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteFaults(t *testing.T) {
	unchanged := func(before, after string) bool { return after == before }
	written := func(before, after string) bool {
		return len(after) > len(before) && strings.Contains(after, `authIMSTAClientId="`+client+`"`)
	}
	for _, test := range []struct {
		switches  string
		code      int
		signal    syscall.Signal
		announced bool // that all is well, be it true or not
		left      func(before, after string) bool
	}{
		{`{"fail": "before"}`, 1, 0, false, unchanged},
		{`{"fail": "after"}`, 1, 0, true, written},
		{`{"fail": "before", "exit_code": 3}`, 3, 0, false, unchanged},
		{`{"fail": "after", "exit_code": 0}`, 0, 0, true, written},
		{`{"exit_code": 7}`, 7, 0, true, written},
		{`{"no_write": true}`, 0, 0, true, unchanged},
		{`{"no_write": true, "exit_code": 9}`, 9, 0, true, unchanged},
		{`{"write_empty": true}`, 0, 0, true, func(_, after string) bool { return after == "" }},
		{`{"write_half": true}`, 1, 0, false, halfWritten},
		{`{"write_half": true, "die": true}`, -1, syscall.SIGKILL, false, halfWritten},
		{`{"write_empty": true, "die": true}`, -1, syscall.SIGKILL, false, func(_, after string) bool { return after == "" }},
		{`{"fail": "before", "die": true}`, -1, syscall.SIGKILL, false, unchanged},
		{`{"fail": "after", "die": true}`, -1, syscall.SIGKILL, true, written},
		{`{"garbage": true}`, 0, 0, true, func(_, after string) bool { return after != "" && !wellFormed(after) }},
		{`{}`, 0, 0, true, written},
	} {
		t.Run(test.switches, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			c.setFaults(test.switches)
			before := c.read()
			r := c.run("config", "-instance:prod", oauth)
			if r.code != test.code || r.signal != test.signal {
				t.Errorf("exit %d, signal %v; want %d, %v", r.code, r.signal, test.code, test.signal)
			}
			if after := c.read(); !test.left(before, after) {
				t.Errorf("left behind:\n%s", after)
			}
			if announced := strings.Contains(r.stdout, "updated"); announced != test.announced {
				t.Errorf("success announced: %v, want %v", announced, test.announced)
			}
			ends := 0
			for _, record := range c.records() {
				if record.Event == "end" {
					ends++
				}
			}
			if (ends == 0) != (test.signal != 0) {
				t.Errorf("%d end records after signal %v", ends, test.signal)
			}
		})
	}
}

func halfWritten(before, after string) bool {
	return len(after) > len(before)/2-1 && len(after) < len(before) && after[:100] == before[:100] && !wellFormed(after)
}

func wellFormed(text string) bool {
	decoder := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := decoder.Token(); err != nil {
			return err == io.EOF
		}
	}
}

func TestHang(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"hang": true}`)
	before := c.read()
	run := c.startUntil("hang", "config", "-instance:prod", oauth)
	if c.read() != before {
		t.Error("the file was touched before the hang")
	}
	run.signal(syscall.SIGTERM)
	if r := run.end(); r.signal != syscall.SIGTERM {
		t.Errorf("ended by exit %d, signal %v; want SIGTERM", r.code, r.signal)
	}
}

func TestHangAfterTruncate(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"hang_after_truncate": true}`)
	run := c.startUntil("hang_after_truncate", "config", "-instance:prod", oauth)
	if text := c.read(); text != "" {
		t.Errorf("the file holds %d bytes, want none", len(text))
	}
	run.signal(syscall.SIGKILL)
	run.end()
}

// A run that ignores SIGTERM gets it while it waits, and still ends well when it is released.
func TestWriteDelayAndIgnoredSigterm(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"write_delay": "1h", "ignore_sigterm": true}`)
	run := c.startUntil("write_delay", "config", "-instance:prod", oauth)
	run.signal(syscall.SIGTERM)
	if text := c.read(); text != "" {
		t.Errorf("the file holds %d bytes during the delay, want none", len(text))
	}
	if err := os.WriteFile(filepath.Join(c.home, "var", "standin", "released"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run.end(); r.code != 0 {
		t.Errorf("exit %d, signal %v; want 0", r.code, r.signal)
	}
	if c.ims()["authIMSTAClientId"] != client {
		t.Error("nothing was written after the delay")
	}
}
