package nlserver

import (
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
)

// listing is a fake nlserver whose options are the lines of the file options.
const listing = `if [ "$2" = "-?" ]; then cat $H/options; exit 1; fi`

func (h *fakeHome) questions() int {
	h.t.Helper()
	return strings.Count(h.read("runs"), "config -?")
}

func TestAutoTakesTheBestOption(t *testing.T) {
	for _, test := range []struct{ name, options, want string }{
		{"all", "Usage\n  -setimsjwtauth:<a>\n  -setimsauth:<a>\n  -setimsoauth:<a>\n", CommandOAuth},
		{"7.3", "  -setimsjwtauth:<a>\n  -setimsauth:<a>\n", commandIMS},
		{"older", "[-reload] [-setimsjwtauth:<a>]\n", commandJWT},
		{"at the end", "x -setimsauth", commandIMS},
		{"longer words", "-setimsoauth2 -nosetimsauth --setimsoauth -x-setimsauth -setimsauth-old setimsoauth -setimsjwtauth", commandJWT},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHome(t, listing)
			h.write("options", test.options, 0o644)
			n := h.server(auto)
			if _, err := n.set(t.Context(), "prod", nlTestCredential, nil); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(h.read("args"), "\n-"+test.want+":0123") {
				t.Errorf("ran with %s", h.read("args"))
			}
		})
	}
}

func TestAutoAsksOnceForAnExecutable(t *testing.T) {
	h := newFakeHome(t, listing)
	h.write("options", "-setimsauth", 0o644)
	n := h.server(auto)
	runsWith := func(option string) {
		t.Helper()
		if _, err := n.set(t.Context(), "prod", nlTestCredential, nil); err != nil {
			t.Error(err)
		}
		if args := h.read("args"); !strings.HasPrefix(args[strings.LastIndex(args, "\n-")+1:], "-"+option+":") {
			t.Errorf("want %s, ran with %s", option, args)
		}
	}
	runsWith(commandIMS)
	runsWith(commandIMS)
	if got := h.questions(); got != 1 {
		t.Errorf("asked %d times", got)
	}
	h.write("options", "-setimsoauth", 0o644)
	h.install(listing + "\n# updated")
	runsWith(CommandOAuth)
	// In place and of the same size: the time tells.
	h.write("options", "-setimsjwtauth", 0o644)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(h.file("bin/nlserver"), later, later); err != nil {
		t.Fatal(err)
	}
	runsWith(commandJWT)
	if got := h.questions(); got != 3 {
		t.Errorf("asked %d times for three executables", got)
	}
}

func TestAutoWithoutAnAnswer(t *testing.T) {
	for _, test := range []struct {
		name, script string
		timeout      time.Duration
		want         []string
	}{
		{"none offered", `echo 'Usage: -reload'`, time.Minute,
			[]string{"lists none of -setimsoauth, -setimsauth, -setimsjwtauth", "bin/nlserver", "7.4.1 build 9383", "campaign.command", "-reload"}},
		{"silent", `exit 0`, time.Minute, []string{"lists none"}},
		{"silent failure", `exit 127`, time.Minute, []string{"lists none", "exit status 127"}},
		{"hangs", `echo -setimsoauth; sleep 600`, 3 * time.Second, []string{"stopped after 3s", "config -?"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHome(t, `if [ ! -e $H/mended ]; then `+test.script+"\nexit; fi\n"+listing)
			n := h.server(auto, func(c *Config) { c.Timeout = test.timeout })
			_, err := n.set(t.Context(), "prod", nlTestCredential, nil)
			mustSay(t, err, test.want...)
			if strings.Contains(h.read("args"), nlTestSecret) {
				t.Error("the secret was handed over")
			}
			// The answer is not remembered: what was wrong may be mended without a new executable.
			h.write("options", "-setimsauth", 0o644)
			h.write("mended", "", 0o644)
			n = withTimeout(n, time.Minute)
			if _, err := n.set(t.Context(), "prod", nlTestCredential, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func withTimeout(n *Binary, timeout time.Duration) *Binary {
	n.cfg.Timeout = timeout
	return n
}

func TestConfiguredCommandIsNotAskedFor(t *testing.T) {
	for _, command := range []string{"setimsoauth", "setimsauth", "setimsjwtauth"} {
		h := newFakeHome(t, listing)
		n := h.server(func(c *Config) { c.Command = command })
		if _, err := n.set(t.Context(), "prod", nlTestCredential, nil); err != nil {
			t.Fatal(err)
		}
		if h.questions() != 0 || !strings.Contains(h.read("args"), "-"+command+":0123") {
			t.Errorf("%s: ran with %s", command, h.read("args"))
		}
	}
}

// A secret that looks like an option must not hide the option.
func TestRedactionDoesNotHideOptions(t *testing.T) {
	h := newFakeHome(t, listing)
	h.write("options", "-setimsoauth:<a>\n-setimsauth:<a>\n", 0o644)
	c := nlTestCredential
	c.ClientSecret = credential.NewSecret("oauth")
	if _, err := h.server(auto).set(t.Context(), "prod", c, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(h.read("args"), "-setimsoauth:0123") {
		t.Errorf("ran with %s", h.read("args"))
	}
}
