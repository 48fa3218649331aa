package main_test

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRefusesToRunWithoutEnvScript(t *testing.T) {
	for about, libraryPath := range map[string]string{
		"not set": "",
		"another": "LD_LIBRARY_PATH=/usr/lib:/opt/nl6/lib",
		"empty":   "LD_LIBRARY_PATH=",
	} {
		t.Run(about, func(t *testing.T) {
			c := newCampaign(t)
			before := c.read()
			cmd := c.command("config", "-instance:prod", oauth)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), libraryPath}
			r := c.finish(cmd)
			if r.code != 127 || !strings.Contains(r.stderr, "error while loading shared libraries") || r.stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
			}
			if c.read() != before {
				t.Error("the instance file changed")
			}
			for _, record := range c.records() {
				if record.EnvOK {
					t.Error("the run log says that the environment was right")
				}
			}
		})
	}
}

// sh runs a script in a shell with nothing in its environment but PATH.
func (c *campaign) sh(script string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), "/bin/sh", "-c", "set -eu\n"+script)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME_UNDER_TEST=" + c.home}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestEnvScript(t *testing.T) {
	c := &campaign{t, filepath.Join(t.TempDir(), "a 'quoted' $dir", "nl6")}
	c.mustTool("--standin-layout", c.home)
	c.mustTool("--standin-instance", c.home, "prod")
	if err := os.WriteFile(filepath.Join(c.home, "customer.sh"), []byte("CUSTOMER_SAYS=hello; export CUSTOMER_SAYS\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := c.sh(`. "$HOME_UNDER_TEST/env.sh"
		nlserver config -instance:prod ` + oauth + `
		echo "$USERPATH $CUSTOMER_SAYS"`)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := filepath.Dir(c.home) + " hello\n"; !strings.HasSuffix(out, want) {
		t.Errorf("printed %q, want it to end in %q", out, want)
	}
	if c.ims()["authIMSTAClientId"] != client {
		t.Error("the credential is not in the file of this home")
	}
}

// A home whose bin/nlserver is a link works on its own files.
func TestHomeOfALinkedExecutable(t *testing.T) {
	c := newCampaign(t)
	linked := filepath.Join(c.home, "bin", "nlserver")
	if err := os.Remove(linked); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(standin, linked); err != nil {
		t.Fatal(err)
	}
	c.mustRun("config", "-instance:prod", oauth)
	if c.ims()["authIMSTAClientId"] != client {
		t.Error("the credential is not in the file of this home")
	}
	// As a shell would with exec -a: argv[0] may say anything.
	other := newCampaign(t)
	cmd := other.command("config", "-instance:prod", oauth)
	cmd.Args[0] = linked
	if r := other.finish(cmd); r.code != 0 || other.ims()["authIMSTAClientId"] != client {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}

func TestRefusesToRunOutsideAHome(t *testing.T) {
	cmd := exec.Command(standin, "config", "-?")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 78 || !strings.Contains(string(out), "--standin-layout") {
		t.Errorf("exit %d, %s", cmd.ProcessState.ExitCode(), out)
	}
}

func TestLayoutAgainKeepsTheConfiguration(t *testing.T) {
	c := newCampaign(t)
	c.mustRun("config", "-instance:prod", oauth)
	before := c.read()
	defaults := filepath.Join(c.home, "conf", "config-default.xml")
	if err := os.WriteFile(defaults, []byte("<serverconf/>"), 0o640); err != nil {
		t.Fatal(err)
	}
	c.mustTool("--standin-layout", c.home)
	if c.read() != before {
		t.Error("the instance file changed")
	}
	if text, err := os.ReadFile(defaults); err != nil || string(text) != "<serverconf/>" {
		t.Errorf("config-default.xml became %q (%v)", text, err)
	}
	if err := exec.Command(standin, "--standin-instance", c.home, "prod").Run(); err == nil || c.read() != before {
		t.Errorf("an instance that is there was written again (%v)", err)
	}
	for _, name := range []string{"default", "", "../x", "a/b"} {
		if err := exec.Command(standin, "--standin-instance", c.home, name).Run(); err == nil {
			t.Errorf("%q passed as the name of an instance", name)
		}
	}
	c.mustRun("config", "-?")
}

func TestSampleInstanceIsRealistic(t *testing.T) {
	c := newCampaign(t)
	text := c.read()
	if len(text) < 6<<10 || len(text) > 10<<10 {
		t.Errorf("%d bytes, want about 8 KiB", len(text))
	}
	if !strings.HasPrefix(text, "<?xml version='1.0'?>\n") || strings.Contains(text, "@NAME@") {
		t.Error("wrong declaration, or a name was not filled in")
	}
	var file struct {
		XMLName xml.Name `xml:"serverconf"`
		Login   struct {
			Login string `xml:"login,attr"`
		} `xml:"shared>dataStore>dataSource>dbcnx"`
		MTA       *struct{} `xml:"mta"`
		WFServer  *struct{} `xml:"wfserver"`
		Pipelined *struct{} `xml:"pipelined"`
	}
	if err := xml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	if file.Login.Login != "campaign:prod" || file.MTA == nil || file.WFServer == nil || file.Pipelined == nil {
		t.Errorf("login %q, mta %v, wfserver %v, pipelined %v", file.Login.Login, file.MTA, file.WFServer, file.Pipelined)
	}
	ims := c.ims()
	if ims["authIMSClientId"] == "" || ims["authIMSTAClientId"] != "" {
		t.Errorf("<ims> has %v, want the login of people and no technical account", ims)
	}
}
