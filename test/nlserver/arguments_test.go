package main_test

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

var errorLine = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d >   .* \(iRc=-?\d+\)$`)

func TestRefusedCommandLines(t *testing.T) {
	for _, test := range []struct {
		about string
		args  []string
		says  string
	}{
		{"nothing", nil, "No command"},
		{"unknown command", []string{"frobnicate"}, "Unknown command 'frobnicate'"},
		{"config alone", []string{"config"}, "Nothing to do"},
		{"instance alone", []string{"config", "-instance:prod"}, "Nothing to do"},
		{"stray argument", []string{"config", "-instance:prod", "setimsoauth"}, "Unexpected argument"},
		{"unknown option", []string{"config", "-instance:prod", "-setfoo:a/b/c/d"}, "Unknown option '-setfoo'."},
		{"no instance", []string{"config", oauth}, "needs '-instance:"},
		{"empty instance", []string{"config", "-instance:", oauth}, "Invalid instance name"},
		{"instance twice", []string{"config", "-instance:prod", "-instance:prod", oauth}, "more than once"},
		{"two operations", []string{"config", "-instance:prod", oauth, "-reload"}, "one operation"},
		{"config-default.xml is no instance", []string{"config", "-instance:default", oauth}, "Invalid instance name"},
		{"path as instance", []string{"config", "-instance:../prod", oauth}, "Invalid instance name"},
		{"instance without a file", []string{"config", "-instance:test", oauth}, "no such file"},

		{"oauth, three fields", []string{"config", "-instance:prod", "-setimsoauth:a/b/c"}, "4 values separated by '/', 3 given"},
		{"oauth, slash in the secret", []string{"config", "-instance:prod", "-setimsoauth:a/b/c/d/e"}, "4 values separated by '/', 5 given"},
		{"oauth, no value", []string{"config", "-instance:prod", "-setimsoauth"}, "1 given"},
		{"oauth, empty org", []string{"config", "-instance:prod", "-setimsoauth:/b/c/d"}, "value 1 is empty"},
		{"oauth, empty secret", []string{"config", "-instance:prod", "-setimsoauth:a/b/c/"}, "value 4 is empty"},
		{"ims, three fields", []string{"config", "-instance:prod", "-setimsauth:a/b/c"}, "3 given"},
		{"jwt, two fields", []string{"config", "-instance:prod", "-setimsjwtauth:a/b"}, "3 to 5 values separated by '/', 2 given"},
		{"jwt, empty secret", []string{"config", "-instance:prod", "-setimsjwtauth:a/b/c//a2V5"}, "value 4 is empty"},
		{"jwt, key not base64", []string{"config", "-instance:prod", "-setimsjwtauth:a/b/c/d/not base64"}, "not base64"},
		{"jwt, key with a line end", []string{"config", "-instance:prod", "-setimsjwtauth:a/b/c/d/a2V5\n"}, "not base64"},

		{"restart nothing", []string{"restart"}, "One module is expected, 0 given"},
		{"restart two", []string{"restart", "web", "syslogd"}, "One module is expected, 2 given"},
		{"restart unknown", []string{"restart", "webb"}, "Unknown module 'webb'"},
		{"restart with an unknown option", []string{"restart", "web", "-force"}, "Unknown option '-force'"},
		{"web of an instance", []string{"restart", "web@prod"}, "takes no '@<instance>'"},
		{"syslogd of an instance", []string{"restart", "syslogd@prod"}, "takes no '@<instance>'"},
		{"trackinglogd of an instance", []string{"restart", "trackinglogd@prod"}, "takes no '@<instance>'"},
		{"watchdog of an instance", []string{"restart", "watchdog@prod"}, "takes no '@<instance>'"},
		{"mta without instance", []string{"restart", "mta"}, "needs its instance"},
		{"wfserver without instance", []string{"restart", "wfserver"}, "needs its instance"},
		{"inMail without instance", []string{"restart", "inMail"}, "needs its instance"},
		{"sms without instance", []string{"restart", "sms"}, "needs its instance"},
		{"stat without instance", []string{"restart", "stat"}, "needs its instance"},
		{"pipelined without instance", []string{"restart", "pipelined"}, "needs its instance"},
		{"pipelined with an empty instance", []string{"restart", "pipelined@"}, "Invalid instance name"},
		{"pipelined of an unknown instance", []string{"restart", "pipelined@test"}, "'test' does not exist"},
	} {
		t.Run(test.about, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			before := c.read()
			r := c.run(test.args...)
			if r.code != 1 {
				t.Errorf("exit %d, want 1", r.code)
			}
			if !strings.Contains(r.stderr, test.says) || !errorLine.MatchString(r.stderr) {
				t.Errorf("stderr %q, want a log line with %q and an iRc", r.stderr, test.says)
			}
			if c.read() != before {
				t.Error("the instance file changed")
			}
		})
	}
}

func TestAcceptedCommandLines(t *testing.T) {
	for _, args := range [][]string{
		{"config", "-reload"},
		{"config", "-?"},
		{"config", oauth, "-instance:prod"}, // the order is free
		{"restart", "web"}, {"restart", "web", "-tomcat", "-noconsole"}, {"restart", "syslogd"},
		{"restart", "trackinglogd"}, {"restart", "watchdog"},
		{"restart", "mta@prod"}, {"restart", "wfserver@prod"}, {"restart", "inMail@prod"},
		{"restart", "sms@prod"}, {"restart", "stat@prod"}, {"restart", "pipelined@prod"},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			t.Parallel()
			r := newCampaign(t).mustRun(args...)
			first, _, _ := strings.Cut(r.stdout, "\n")
			banner := regexp.MustCompile(`^\d\d:\d\d:\d\d >   Application server for Adobe Campaign Classic \(7\.4\.1 \S+ build 9383@[0-9a-f]+\) of \d\d/\d\d/\d{4}$`)
			if !banner.MatchString(first) {
				t.Errorf("first line %q is no banner", first)
			}
			if r.stderr != "" {
				t.Errorf("stderr %q, want nothing", r.stderr)
			}
		})
	}
}

func TestSetCredential(t *testing.T) {
	// The base64 of this has slashes, which separate the other fields.
	key := base64.StdEncoding.EncodeToString([]byte("???-----BEGIN PRIVATE KEY-----???>>>"))
	if strings.Count(key, "/") < 2 {
		t.Fatal("the test key must have slashes")
	}
	four := strings.Join([]string{org, client, account, secret}, "/")
	for _, test := range []struct {
		about, option       string
		wantSecret, wantKey string // empty: the attribute must not be there
	}{
		{about: "oauth", option: "-setimsoauth:" + four, wantSecret: secret},
		{about: "ims", option: "-setimsauth:" + four, wantSecret: secret},
		{about: "jwt, three fields", option: "-setimsjwtauth:" + strings.TrimSuffix(four, "/"+secret)},
		{about: "jwt, four fields", option: "-setimsjwtauth:" + four, wantSecret: secret},
		{about: "jwt, five fields", option: "-setimsjwtauth:" + four + "/" + key, wantSecret: secret, wantKey: key},
	} {
		t.Run(test.about, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			people := c.ims()
			c.mustRun("config", "-instance:prod", test.option)
			got := c.ims()
			if got["authIMSTAClientId"] != client || got["authIMSTAId"] != account {
				t.Errorf("client %q, account %q", got["authIMSTAClientId"], got["authIMSTAId"])
			}
			for name, want := range map[string]string{"authIMSTAClientSecret": test.wantSecret, "authIMSTAPrivateKey": test.wantKey} {
				value, present := got[name]
				switch {
				case present != (want != ""):
					t.Errorf("%s present: %v", name, present)
				case present && !strings.HasPrefix(value, "@"):
					t.Errorf("%s = %q, want @ and base64", name, value)
				case present && c.decrypt(value) != want:
					t.Errorf("%s decrypts to %q, want %q", name, c.decrypt(value), want)
				}
			}
			for name, value := range people {
				if got[name] != value {
					t.Errorf("%s, the login of people, became %q", name, got[name])
				}
			}
			for _, value := range got {
				if strings.Contains(value, org) {
					t.Error("the organisation is in the file, although no attribute for it was named")
				}
			}
		})
	}
}

func TestDecryptRefusesOtherValues(t *testing.T) {
	c := newCampaign(t)
	c.mustRun("config", "-instance:prod", oauth)
	value := c.ims()["authIMSTAClientSecret"]
	last := "A"
	if strings.TrimRight(value, "=")[len(value)/2] == 'A' {
		last = "B"
	}
	for about, wrong := range map[string]string{
		"changed": value[:len(value)/2] + last + value[len(value)/2+1:],
		"cut off": value[:9],
		"no mark": value[1:],
		"foreign": "@cGVvcGxlIGxvZyBpbiB3aXRoIHRoaXM=",
		"empty":   "",
	} {
		cmd := c.command("--standin-decrypt", wrong)
		if r := c.finish(cmd); r.code != 1 || r.stdout != "" {
			t.Errorf("%s: exit %d, printed %q", about, r.code, r.stdout)
		}
	}
}
