package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// goodConfig is the least that is accepted. %s takes further lines.
const goodConfig = `vault: {address: "https://vault:8200", auth: {role_id: canary, secret_id_file: /s}}
instances: [{name: prod, path: a}]
%s
`

func noEnvironment(string) (string, bool) { return "", false }

func parseText(text string) (*Config, error) {
	return parse("c.yaml", []byte(text), noEnvironment)
}

// TestConfigOddFiles: files that a script cannot hold well.
func TestConfigOddFiles(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"Latin-1", "vault: {}\n# caf\xe9\n", "c.yaml:1:1: is not UTF-8; save the file as UTF-8"},
		{"UTF-16", "\xff\xfev\x00", "c.yaml:1:1: is not UTF-8; save the file as UTF-8"},
		{"columns are characters", "log: {level: \"éé\", format: x}\n", "c.yaml:1:28: log.format: \"x\" must be one of"},
		{"CRLF", "vault: {}\r\nwatch:\r\n  poll: 2h\r\n", "c.yaml:3:9: watch.poll: \"2h\" must be from 1s to 1h"},
		{"nothing", "", "c.yaml:1:1: must be one YAML document"},
		{"tab", "vault:\n\taddress: x\n", "c.yaml:2:1: is not YAML: the line begins with a tab; use spaces"},
		{"alias", "watch: &w {poll: 1s}\nlog: *w\n", "c.yaml:2:6: log: must be a group of keys: level, format"},
		{"merge", "log: {<<: {level: info}}\n", "c.yaml:1:7: log.<<: unknown key; allowed here: level, format"},
		{"huge number", "drift: {max_reverts: 99999999999999999999}\n", "drift.max_reverts: \"99999999999999999999\" must be a whole number"},
		{"socket too long", "control_socket: /" + strings.Repeat("x", 107) + "\n", " is longer than 107 bytes"},
		{"panic of the cron library", "schedule: {verify: TZ=0}\n", "schedule.verify: \"TZ=0\" must be a cron expression"},
		{"cron shorter than a second", "schedule: {reapply: ' @every -5m'}\n", "schedule.reapply: \" @every -5m\" @every needs 1s or more"},
		{"port", "vault: {address: 'https://v:65536'}\n", "vault.address: has a port that is not from 1 to 65535"},
		{"state beside the files", "state_dir: /c/\ninstances: [{name: a, path: a, config_file: /c/a.xml}]\n", "state_dir: \"/c/\" is the directory of instances[0].config_file"},
		{"more reverts than the record holds", "drift: {max_reverts: 10001}\n", "drift.max_reverts: \"10001\" must be from 1 to 10000"},
		{"long name", "instances: [{name: " + strings.Repeat("a", 129) + ", path: a}]\n", "and 128 characters at most"},
		{"name of another file of ours", "instances: [{name: refused-secret-id, path: a}]\n", "instances[0].name: \"refused-secret-id\" is the name of another file in state_dir"},
		{"no host", "vault: {address: 'https://:8200'}\n", "vault.address: must be an http or https URL of a host,"},
		{"address with a path", "vault: {address: 'https://v/v1'}\n", "without user and path"},
		{"unix socket", "vault: {address: 'unix:///run/vault'}\n", "vault.address: must be an http or https URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, bad := parseText(test.text)
			if bad == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(bad.Error(), test.want) {
				t.Errorf("got:\n%v\nwant a line with %q", bad, test.want)
			}
		})
	}
}

func TestConfigFileTooLarge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, bytes.Repeat([]byte("# x\n"), maxSize/4+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, noEnvironment); err == nil || !strings.Contains(err.Error(), "is larger than 65536 bytes") {
		t.Errorf("got %v", err)
	}
}

// TestConfigBOM: Windows editors put one in front.
func TestConfigBOM(t *testing.T) {
	if _, bad := parseText("\ufeff" + fmt.Sprintf(goodConfig, "")); bad != nil {
		t.Error(bad)
	}
}

// TestConfigSaysNothing: a group whose keys are all commented out keeps its defaults.
func TestConfigSaysNothing(t *testing.T) {
	c, bad := parseText(fmt.Sprintf(goodConfig, "campaign:\n  # home: /x\ndrift: {revert: }\nlog: ~"))
	if bad != nil {
		t.Fatal(bad)
	}
	d := &Config{}
	setDefaults(reflect.ValueOf(d).Elem())
	if !reflect.DeepEqual(c.Campaign, d.Campaign) || c.Drift != d.Drift || c.Log != d.Log {
		t.Errorf("not the defaults: %+v %+v %+v", c.Campaign, c.Drift, c.Log)
	}
}

// TestRoleIDDoesNotPrint: whoever logs a configuration must not log half of a credential.
func TestRoleIDDoesNotPrint(t *testing.T) {
	c, bad := parseText(fmt.Sprintf(goodConfig, ""))
	if bad != nil {
		t.Fatal(bad)
	}
	if c.Vault.Auth.RoleID.Reveal() != "canary" {
		t.Fatal("the role-id was not read")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, c); strings.Contains(text, "canary") {
			t.Errorf("%s prints it: %s", verb, text)
		}
	}
}

func TestSchedulesInTheirZone(t *testing.T) {
	zone := time.FixedZone("east", 9*60*60)
	c, bad := parseText(fmt.Sprintf(goodConfig, "schedule: {activate: '0 3 * * *'}"))
	if bad != nil {
		t.Fatal(bad)
	}
	s := c.Schedule
	if s.ReapplyAt != nil {
		t.Error("an empty expression has a schedule")
	}
	// A clock in another zone does not move the hour.
	after := time.Date(2026, 1, 1, 0, 0, 0, 0, zone)
	if got, want := s.ActivateAt.Next(after), time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("next %v, want %v", got, want)
	}
}

const packaged = "../../packaging/systemd/"

func systemdEnvironment(name string) (string, bool) {
	if name != "CREDENTIALS_DIRECTORY" {
		return "", false
	}
	return "/run/credentials/campaign-credsync.service", true
}

// TestExampleConfig: it is accepted as it is, says nothing but the defaults where there are any, and names every key, with what its help says.
func TestExampleConfig(t *testing.T) {
	text, err := os.ReadFile(packaged + "config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(packaged+"config.example.yaml", systemdEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Warnings) > 0 {
		t.Errorf("warnings: %q", got.Warnings)
	}
	want, bad := parse("c.yaml", []byte(fmt.Sprintf(goodConfig, "")), noEnvironment)
	if bad != nil {
		t.Fatal(bad)
	}
	want.Vault.Address = got.Vault.Address
	want.Vault.Auth.RoleID = got.Vault.Auth.RoleID
	want.Vault.Auth.SecretIDFile = "/run/credentials/campaign-credsync.service/secret_id"
	want.Instances[0].Path = got.Instances[0].Path
	if a, b := effectiveText(t, got), effectiveText(t, want); a != b {
		t.Errorf("not the defaults:\n%s\nwant:\n%s", a, b)
	}
	var comments strings.Builder
	for _, comment := range regexp.MustCompile(`# (.*)`).FindAllSubmatch(text, -1) {
		fmt.Fprintf(&comments, "%s ", comment[1])
	}
	for _, field := range allFields(reflect.TypeFor[Config]()) {
		key := keyOf(field)
		if !regexp.MustCompile(`(?m)^[ #-]*` + key + `:`).Match(text) {
			t.Errorf("the key %s is not in it", key)
		}
		for sentence := range strings.SplitSeq(field.Tag.Get("help"), ". ") {
			if !strings.Contains(comments.String(), sentence) {
				t.Errorf("of %s it does not say: %s", key, sentence)
			}
		}
	}
}

func effectiveText(t *testing.T, c *Config) string {
	t.Helper()
	var b strings.Builder
	if err := c.Effective(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// allFields are the fields of a group that the file can set, and those of the groups in it.
func allFields(group reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for field := range group.Fields() {
		if keyOf(field) != "" {
			fields = append(fields, field)
		}
		inner := field.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			fields = append(fields, allFields(inner)...)
		}
	}
	return fields
}

// FuzzConfig: no text makes it panic, and what it accepts can be worked with.
func FuzzConfig(f *testing.F) {
	scripts, _ := filepath.Glob("../../cmd/campaign-credsync/testdata/script/*.txtar")
	if len(scripts) == 0 {
		f.Fatal("no scripts to take seeds from")
	}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range regexp.MustCompile(`(?m)^-- .* --$`).Split(string(text), -1)[1:] {
			f.Add([]byte(part))
		}
	}
	f.Add([]byte(fmt.Sprintf(goodConfig, "log: &l {level: debug}\nwatch: {<<: *l}")))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4<<10 {
			return // the parser's time is bounded, and longer than is worth a try
		}
		c, bad := parse("c.yaml", text, systemdEnvironment)
		if bad != nil {
			for line := range strings.Lines(bad.Error()) {
				if !regexp.MustCompile(`^c\.yaml:[1-9]\d*:[1-9]\d*: \S`).MatchString(line) {
					t.Errorf("a problem without its place: %q", line)
				}
			}
			return
		}
		var names []string
		for _, i := range c.Instances {
			names = append(names, i.Name)
			inVault := i.Source == "vault" && i.Path != "" && (i.KVVersion == 1 || i.KVVersion == 2) && i.File == ""
			inFile := i.Source == SourceFile && filepath.IsAbs(i.File)
			if !instanceName().MatchString(i.Name) || len(i.Name) > maxInstanceName || !filepath.IsAbs(i.ConfigFile) || inVault == inFile {
				t.Errorf("accepted the instance %+v", i)
			}
		}
		slices.Sort(names)
		if n := len(names); n == 0 || len(slices.Compact(names)) != n {
			t.Errorf("accepted instances %q", names)
		}
		if c.Watch.Poll < time.Second || c.Campaign.Timeout <= 0 || c.Drift.MaxReverts < 1 || c.needsVault() && c.Vault.Address == "" {
			t.Errorf("accepted %+v", c)
		}
		if c.Schedule.VerifyAt == nil {
			t.Errorf("accepted the schedule %+v", c.Schedule)
		}
		// What is printed is read again as the same.
		again, bad := parse("c.yaml", []byte(effectiveText(t, c)), systemdEnvironment)
		if bad != nil {
			t.Fatalf("the effective configuration is refused: %v\n%s", bad, effectiveText(t, c))
		}
		if a, b := effectiveText(t, c), effectiveText(t, again); a != b {
			t.Errorf("the effective configuration changes when it is read again:\n%s\n%s", a, b)
		}
	})
}
